# SPDX-License-Identifier: MIT
"""The data module: from a config to batches, also under Lightning."""

import lightning
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.data.engines.batched import RawLoader
from ltplugins.data.engines.build import build_loader
from ltplugins.data.engines.draws import RawBatch
from ltplugins.data.imbalance import exponential_counts
from ltplugins.data.samplers.base import Shard
from tests.kit.dali import DALI
from tests.kit.data import data_module, training_set

BLOCK = {
    "rrc": {"enabled": True},
    "horizontal_flip": {"prob": 0.5},
    "crop_size": 8,
    "num_crops": 2,
}


@pytest.fixture
def arrays(tmp_path):
    """40 images of 8 pixels, 10 a class."""
    rng = np.random.RandomState(0)
    images = rng.randint(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(40) % 4)
    return str(tmp_path / "set.npz")


def config(path, **data):
    return OmegaConf.create(
        {
            "data": {
                "dataset": "custom",
                "format": "arrays",
                "train_path": path,
                "num_workers": 0,
                **data,
            },
            "augmentations": [BLOCK],
            "optimizer": {"batch_size": 4},
            "seed": 5,
        }
    )


def test_everything_is_known_before_training(arrays):
    module = data_module(config(arrays, imbalance={"kind": "exp", "factor": 10}))
    data = module.training
    counts = exponential_counts(10, 4, 10)
    assert data.class_counts.tolist() == counts == [10, 4, 2, 1]
    assert data.num_samples == len(data.split.indices) == sum(counts)
    assert (data.num_classes, data.class_names) == (4, ("0", "1", "2", "3"))
    assert data.record.small_stem
    assert len(data.split.hash) == 64
    loader = module.train_dataloader()
    assert len(loader) == 4
    for indexes, views, targets in loader:
        assert indexes.max() < data.num_samples
        source_index = data.split.indices[indexes]
        assert (data.source.targets[source_index] == targets.numpy()).all()
        assert [tuple(v.shape) for v in views] == [(4, 3, 8, 8)] * 2


def test_without_an_imbalance_block_everything_is_kept(arrays):
    for block in ({}, {"imbalance": None}, {"imbalance": {"kind": "none"}}):
        assert training_set(config(arrays, **block)).num_samples == 40


def test_validation_batches(arrays):
    assert data_module(config(arrays)).val_dataloader() == []
    data = data_module(config(arrays, val_path=arrays))
    batches = list(data.val_dataloader())
    assert len(batches) == 10
    images, targets = batches[1]
    assert images.shape == (4, 3, 8, 8)
    assert targets.tolist() == [0, 1, 2, 3]
    pixels = torch.from_numpy(data.val_source.images[4]).permute(2, 0, 1) / 255
    record = data.training.record
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (record.mean, record.std))
    assert torch.allclose(images[0], (pixels - mean) / std, atol=1e-5)


def test_validation_uses_the_statistics_and_size_of_the_first_block(arrays):
    cfg = config(arrays, val_path=arrays)
    cfg.augmentations[0].update({"mean": [0.0] * 3, "std": [1.0] * 3, "crop_size": 6})
    images, _ = next(iter(data_module(cfg).val_dataloader()))
    assert images.shape == (4, 3, 6, 6)
    assert images.min() >= 0


def test_raw_batches_are_augmented_after_the_transfer(arrays):
    data = data_module(config(arrays, engine="batched"))
    plain = list(data.train_dataloader())
    data._loader = raw = build_loader(data.training, Shard(seed=5), torch.device("cuda"))
    assert isinstance(raw, RawLoader)
    for batch, expected in zip(raw, plain, strict=True):
        assert isinstance(batch, RawBatch)
        indexes, views, targets = data.on_after_batch_transfer(batch, 0)
        assert torch.equal(indexes, expected[0])
        assert torch.equal(targets, expected[2])
        assert all(torch.allclose(v, e) for v, e in zip(views, expected[1], strict=True))
    validation = [torch.zeros(2, 3, 8, 8), torch.zeros(2)]
    assert data.on_after_batch_transfer(validation, 0) is validation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"sampler": "balanced"}}, r"data.sampler.name: expected one of .*got 'balanced'"),
        (
            {"data": {"imbalance": {"kind": "exp", "factor": 0.01}}},
            r"factor: expected a number of 1 or more \(100, not 0.01\), got 0.01. Set it",
        ),
        ({"optimizer": {"batch_size": 64}}, "fewer images than the batch: 40 training images"),
        (
            {"augmentations": [{"crop_sze": 8}]},
            r"'augmentations\[0\].crop_sze'. Did you mean 'crop_",
        ),
        ({"data": {"on_corrupt": "ignore"}}, "data.on_corrupt: expected one of fail, skip"),
    ],
)
def test_what_does_not_fit_is_said_at_once(arrays, change, message):
    cfg = OmegaConf.merge(config(arrays), change)
    with pytest.raises(UserError, match=message):
        training_set(cfg)


def test_corrupt_test_image(tmp_path):
    for part in ("train", "val"):
        for c in "ab":
            (tmp_path / part / c).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (8, 8)).save(tmp_path / part / c / f"{i}.png")
    (tmp_path / "val" / "b" / "1.png").write_bytes(b"no image")
    cfg = config(str(tmp_path / "train"), format="image_folder", val_path=str(tmp_path / "val"))
    with pytest.raises(UserError, match=r"corrupt test image: .*b.1.png"):
        list(data_module(cfg).val_dataloader())


def test_fashion_pack_by_name():
    cfg = config(None, dataset="fashion_pack", format="image_folder", engine="batched")
    cfg.data.imbalance = {"kind": "exp", "factor": 100, "class_order": 1, "max_count": 200}
    data = data_module(cfg)
    assert sorted(data.class_counts.tolist(), reverse=True) == exponential_counts(200, 10, 100)
    _, views, _ = next(iter(data.train_dataloader()))
    assert views[0].shape == (4, 3, 8, 8)
    assert len(data.val_dataloader()) == 2500


class Recorder(lightning.LightningModule):
    """Remembers what came; stops where told."""

    def __init__(self, stop_after=None, counts_steps=False):
        super().__init__()
        self.counts_steps = counts_steps
        self.layer = torch.nn.Linear(1, 1)
        self.seen, self.stop_after, self.validated = [], stop_after, 0

    def training_step(self, batch, batch_idx):
        indexes, views, _ = batch
        self.seen.append((self.current_epoch, indexes.tolist(), float(views[0].sum())))
        return self.layer(torch.ones(1, 1)).sum()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if len(self.seen) == self.stop_after:
            self.trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def validation_step(self, batch, batch_idx):
        self.validated += len(batch[1])

    def configure_optimizers(self):
        if self.counts_steps:  # Lightning makes the loader for it, before it loads the place
            assert self.trainer.estimated_stepping_batches == 30
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(cfg, folder, stop_after=None, ckpt=None, counts_steps=False, **options):
    module = Recorder(stop_after, counts_steps)
    module.path = folder / "stop.ckpt"
    trainer = lightning.Trainer(
        default_root_dir=folder,
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    try:
        trainer.fit(module, datamodule=data_module(cfg), ckpt_path=ckpt)
    except (KeyboardInterrupt, SystemExit):
        assert stop_after is not None
    return module


@pytest.mark.parametrize("engine", ["workers", "batched", DALI])
@pytest.mark.parametrize("stop_after", [4, 13, 20])  # inside epoch 0, inside 1, at the end of 1
@pytest.mark.parametrize("counts_steps", [False, True])
def test_lightning_resumes_where_it_stopped(arrays, tmp_path, engine, stop_after, counts_steps):
    cfg = config(arrays, engine=engine)
    unbroken = fit(cfg, tmp_path).seen
    assert len(unbroken) == 30
    assert len({tuple(indexes) for _, indexes, _ in unbroken}) == 30  # every epoch another order
    first = fit(cfg, tmp_path, stop_after)
    assert first.seen == unbroken[:stop_after]
    second = fit(cfg, tmp_path, ckpt=first.path, counts_steps=counts_steps)
    assert second.seen == unbroken[stop_after:]


@pytest.mark.parametrize("engine", ["workers", DALI])
def test_lightning_respects_batch_limits_and_validates(arrays, tmp_path, engine):
    cfg = config(arrays, engine=engine, val_path=arrays)
    module = fit(cfg, tmp_path, limit_train_batches=3, num_sanity_val_steps=0)
    assert [epoch for epoch, _, _ in module.seen] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({tuple(indexes) for _, indexes, _ in module.seen}) == 9
    assert module.validated == 3 * 40
