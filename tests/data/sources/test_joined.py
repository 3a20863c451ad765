# SPDX-License-Identifier: MIT
"""The OOD pool: its pack, its place behind the training images, its sampler, its stream."""

import lightning
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.core.files import sha256
from ltplugins.data.augment.plain import EvalDataset, eval_transform
from ltplugins.data.samplers.shuffle import IdPlusOodSampler, ShuffleSampler
from ltplugins.data.sources import packs as pack
from ltplugins.data.sources.arrays import from_arrays
from ltplugins.data.sources.build import build_ood_source
from ltplugins.data.sources.joined import JoinedSource
from tests.kit.data import data_config, data_module, source_of, training_set

NUM_ID, NUM_OOD, SIDE = 20, 12, 8
BLOCK = {"rrc": {"enabled": False}, "horizontal_flip": {"prob": 0.0}, "crop_size": SIDE}


@pytest.fixture
def arrays(tmp_path):
    """Training image i is of brightness i, image j of the pool of brightness 100 + j."""
    for name, first, count in (("id", 0, NUM_ID), ("ood", 100, NUM_OOD)):
        values = np.arange(first, first + count, dtype=np.uint8)
        images = np.broadcast_to(values[:, None, None, None], (count, SIDE, SIDE, 3))
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(count) % 2)
    return tmp_path


def config(arrays, **data):
    block = {"dataset": "custom", "format": "arrays", "train_path": str(arrays / "ood.npz")}
    return OmegaConf.create(
        {
            "data": {
                "dataset": "custom",
                "format": "arrays",
                "train_path": str(arrays / "id.npz"),
                "num_workers": 0,
                "sampler": "id_plus_ood",
                "ood": block,
                **data,
            },
            "augmentations": [{**BLOCK, "num_crops": 2}],
            "optimizer": {"batch_size": 4},
            "seed": 5,
        }
    )


def brightness(views, data):
    """0..255 of each image, back from the normalised view."""
    record = data.training.record
    mean, std = record.mean[0], record.std[0]
    return (views[0][:, 0, 0, 0] * std + mean).mul(255).round().int().tolist()


def test_emoji_pack():
    assert sha256(pack.EMOJI_PATH) == pack.EMOJI_SHA256
    assert pack.EMOJI_PATH.stat().st_size < 3_000_000
    licence = pack.EMOJI_PATH.with_name("emoji_pack.LICENSE.txt").read_text()
    assert "Apache License" in licence
    assert "Noto Emoji" in licence
    source = source_of({"dataset": "emoji_pack"})
    assert source.images.shape == (3511, 28, 28)
    assert source.images.dtype == np.uint8
    assert set(source.targets) == set(range(8))
    assert len(np.unique(source.images.reshape(len(source), -1), axis=0)) > 3450
    mean, std = source.images.mean() / 255, source.images.std() / 255
    assert abs(mean - source.record.mean[0]) < 1e-3
    assert abs(std - source.record.std[0]) < 1e-3
    assert not data_config({"dataset": "emoji_pack"}).has_test_part
    with pytest.raises(UserError, match="emoji_pack has no test part: it is a pool"):
        source_of({"dataset": "emoji_pack"}, "test")


def test_emoji_and_clothes_are_not_told_apart_by_one_statistic():
    """The best threshold on an image's mean, spread, ink or border must leave many errors."""
    fashion = source_of({"dataset": "fashion_pack"}).images[::5].astype(np.float64) / 255
    emoji = source_of({"dataset": "emoji_pack"}).images.astype(np.float64) / 255
    for statistic in (
        lambda x: x.mean((1, 2)),
        lambda x: x.std((1, 2)),
        lambda x: (x > 0.1).mean((1, 2)),
        lambda x: x[:, [0, -1]].mean((1, 2)),
    ):
        a, b = statistic(fashion), statistic(emoji)
        errors = []
        for t in np.quantile(np.concatenate([a, b]), np.linspace(0, 1, 101)):
            balanced = ((a > t).mean() + (b <= t).mean()) / 2
            errors.append(min(balanced, 1 - balanced))
        assert min(errors) > 0.1


@pytest.mark.parametrize("engine", ["workers", "batched"])
def test_ood_images_have_indexes_behind_the_training_images(arrays, engine):
    data = data_module(config(arrays, engine=engine))
    assert (data.num_samples, data.num_ood) == (NUM_ID, NUM_OOD)
    data.set_ood([3, 11, 0, 7])
    loader = data.train_dataloader()
    assert len(loader) == (NUM_ID + 4) // 4
    seen = []
    for indexes, views, targets in loader:
        is_ood = indexes >= NUM_ID
        assert (targets[is_ood] == -1).all()
        assert (targets[~is_ood] == indexes[~is_ood] % 2).all()
        expected = [int(i) if i < NUM_ID else 100 + int(i) - NUM_ID for i in indexes]
        assert brightness(views, data) == expected
        seen += indexes.tolist()
    assert sorted(seen) == [*range(NUM_ID), *(NUM_ID + j for j in (0, 3, 7, 11))]


def test_without_a_subset_the_order_is_that_of_shuffle():
    for epoch in (0, 3):
        a, b = IdPlusOodSampler(17, seed=2), ShuffleSampler(17, seed=2)
        a.set_epoch(epoch)
        b.set_epoch(epoch)
        assert a.positions().tolist() == b.positions().tolist()


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("size", [10, 11])
def test_ranks_share_images_and_subset(world_size, size):
    whole = IdPlusOodSampler(size, seed=1)
    whole.set_ood([5, 1, 9])
    joined = np.empty(size + 3, dtype=np.int64)
    for rank in range(world_size):
        part = IdPlusOodSampler(size, seed=1, rank=rank, world_size=world_size)
        part.set_ood([5, 1, 9])
        assert len(part) == len(part.positions())
        joined[rank::world_size] = part.positions()
    assert joined.tolist() == whole.positions().tolist()
    assert sorted(joined.tolist()) == [*range(size), size + 1, size + 5, size + 9]


def test_a_new_subset_replaces_the_old_one_and_the_loader_stays(arrays):
    data = data_module(config(arrays))
    loader = data.train_dataloader()
    assert len(loader) == 5
    list(loader)
    state = loader.state_dict()
    data.set_ood(np.arange(8))
    assert loader.state_dict() == state == {"epoch": 1, "batches": 0}
    assert len(loader) == 7 == data.batches_per_epoch(8)
    data.set_ood([1, 2])
    ood = [int(i) for indexes, *_ in loader for i in indexes if i >= NUM_ID]
    assert set(ood) <= {NUM_ID + 1, NUM_ID + 2}
    with pytest.raises(AssertionError, match="chosen twice"):
        data.set_ood([1, 1])
    with pytest.raises(AssertionError):
        data.set_ood([NUM_OOD])


def test_state_of_the_subset(arrays):
    data = data_module(config(arrays))
    data.set_ood([4, 2])
    again = data_module(config(arrays))
    again.load_state_dict(data.state_dict())
    assert again.ood_subset.tolist() == [4, 2]
    order = again.train_dataloader().sampler.positions().tolist()
    assert order == data.train_dataloader().sampler.positions().tolist()
    plain = data_module(config(arrays, ood=None, sampler="shuffle"))
    assert plain.state_dict() == {}
    plain.train_dataloader()
    assert plain.state_dict() == {"loader": {"epoch": 0, "batches": 0}}


def write_folder(folder, count, side, first=100):
    (folder / "sub").mkdir(parents=True)
    for j in range(count):
        value = (first + j,) * 3
        Image.new("RGB", (side, side), value).save(folder / "sub" / f"{j:02d}.png")


@pytest.mark.parametrize("engine", ["workers", "batched"])
@pytest.mark.parametrize("side", [SIDE, 16])
def test_a_pool_of_files_behind_arrays(arrays, engine, side):
    write_folder(arrays / "pool", NUM_OOD, side)
    block = {"dataset": "custom", "train_path": str(arrays / "pool")}
    cfg = config(arrays, engine=engine)
    cfg.data.ood = block
    data = data_module(cfg)
    data.set_ood(np.arange(4))
    for indexes, views, _ in data.train_dataloader():
        expected = [int(i) if i < NUM_ID else 100 + int(i) - NUM_ID for i in indexes]
        assert brightness(views, data) == expected


@pytest.mark.parametrize("grey", ["id", "ood", "both"])
def test_grey_and_colour_arrays_go_together(grey):
    rng = np.random.RandomState(0)
    images = {name: rng.randint(0, 256, (6, SIDE, SIDE, 3)).astype(np.uint8) for name in "ab"}
    if grey in ("id", "both"):
        images["a"] = images["a"][..., 0]
    if grey in ("ood", "both"):
        images["b"] = images["b"][..., 0]
    first, second = (from_arrays(images[n], None) for n in "ab")
    joined = JoinedSource(first, second)
    positions = np.array([7, 0, 11, 5])
    got = joined.images[positions]
    assert got.ndim == joined.images.ndim == (3 if grey == "both" else 4)
    for image, position in zip(got, positions, strict=True):
        expected = joined.load(int(position))
        assert (np.broadcast_to(image.reshape(SIDE, SIDE, -1), expected.shape) == expected).all()
    assert (joined.load(7) == second.load(1)).all()
    assert joined.targets[6:].tolist() == [-1] * 6


def test_arrays_of_another_size_are_loaded_one_by_one():
    first = from_arrays(np.zeros((3, 8, 8), np.uint8), None)
    joined = JoinedSource(first, from_arrays(np.full((2, 9, 9), 7, np.uint8), None))
    assert joined.images is None
    assert joined.load(4).shape == (9, 9, 3)


@pytest.mark.parametrize("size", [SIDE, 6])
def test_stream_equals_the_test_transform(arrays, size):
    cfg = config(arrays)
    cfg.augmentations[0].crop_size = size
    data = training_set(cfg)
    transform = eval_transform(data.record, size)
    pool = EvalDataset(build_ood_source(data_config(cfg.data)), transform)
    state = torch.get_rng_state()
    batches = list(data.stream("ood", 1, NUM_OOD))
    assert torch.equal(state, torch.get_rng_state())
    assert [len(b) for b, _ in batches] == [4, 4, 3]
    streamed = torch.cat([b for b, _ in batches])
    expected = torch.stack([pool[j][0] for j in range(1, NUM_OOD)])
    torch.testing.assert_close(streamed, expected, atol=1e-5, rtol=0)
    assert all(ok.all() for _, ok in batches)
    training = torch.cat([b for b, _ in data.stream("id", 0, NUM_ID)])
    assert len(training) == NUM_ID
    torch.testing.assert_close(training[3], transform(data.source.load(3)), atol=1e-5, rtol=0)


def test_stream_reads_a_batch_at_a_time(arrays, monkeypatch):
    """A pool of any size needs the memory of a batch."""
    write_folder(arrays / "pool", 9, SIDE)
    cfg = config(arrays)
    cfg.data.ood = {"dataset": "custom", "train_path": str(arrays / "pool")}
    data = training_set(cfg)
    loaded = []
    load = type(data.ood_source).load
    monkeypatch.setattr(
        type(data.ood_source), "load", lambda self, i: loaded.append(i) or load(self, i)
    )
    stream = data.stream("ood", 0, 9)
    next(stream)
    assert loaded == [0, 1, 2, 3]


def test_corrupt_image_in_the_pool(arrays):
    write_folder(arrays / "pool", 5, SIDE)
    (arrays / "pool" / "sub" / "02.png").write_bytes(b"no image")
    cfg = config(arrays)
    cfg.data.ood = {"dataset": "custom", "train_path": str(arrays / "pool")}
    with pytest.raises(UserError, match=r"corrupt image: .*02.png"):
        list(training_set(cfg).stream("ood", 0, 5))
    cfg.data.on_corrupt = "skip"
    marks = [ok for _, ok in training_set(cfg).stream("ood", 0, 5)]
    assert torch.cat(marks).tolist() == [True, True, False, True, True]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ood": None}, r"data.ood names none. Set data.ood, such as \{dataset: emoji_pack\}"),
        ({"sampler": "shuffle"}, "data.sampler is shuffle, which never draws from it"),
        ({"ood": {"dataset": "emojipack"}}, "Did you mean 'emoji_pack'"),
        ({"ood": {"dataset": "custom", "path": "x"}}, r"unknown key 'data.ood.path'"),
        ({"ood": {"dataset": "custom", "train_path": "/nowhere"}}, r"data.ood: .*nowhere"),
    ],
)
def test_what_does_not_fit_is_said_at_once(arrays, change, text):
    cfg = config(arrays)
    for key, value in change.items():
        cfg.data[key] = value
    with pytest.raises(UserError, match=text):
        data_module(cfg)


class Recorder(lightning.LightningModule):
    """Remembers what came; asks for another subset at the end of the epochs that are named."""

    def __init__(self, plan, stop_after=None, path=None):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.plan, self.stop_after, self.path, self.seen = plan, stop_after, path, []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch[0].tolist()))
        return self.layer(torch.ones(1, 1)).sum()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if len(self.seen) == self.stop_after:
            self.trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def on_train_epoch_end(self):
        self.trainer.reload_dataloaders_every_n_epochs = 0
        if self.current_epoch in self.plan:
            self.trainer.datamodule.set_ood(self.plan[self.current_epoch])
            self.trainer.reload_dataloaders_every_n_epochs = 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(cfg, plan, stop_after=None, path=None, ckpt=None):
    module = Recorder(plan, stop_after, path)
    trainer = lightning.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    try:
        trainer.fit(module, datamodule=data_module(cfg), ckpt_path=ckpt)
    except (KeyboardInterrupt, SystemExit):
        assert stop_after is not None
    return module.seen


@pytest.mark.parametrize("engine", ["workers", "batched"])
@pytest.mark.parametrize("stop_after", [3, 9, 12, 15])
def test_epochs_grow_with_the_subset_and_resume_anywhere(arrays, tmp_path, engine, stop_after):
    """5 batches without a subset, 7 with 8 images, 6 with 4; stops in and at the end of epochs."""
    cfg, plan = config(arrays, engine=engine), {0: np.arange(8), 2: np.array([9, 10, 11, 0])}
    unbroken = fit(cfg, plan)
    assert [sum(e == epoch for e, _ in unbroken) for epoch in range(4)] == [5, 7, 7, 6]
    drawn = [
        sorted({i - NUM_ID for e, b in unbroken if e == epoch for i in b if i >= NUM_ID})
        for epoch in range(4)
    ]
    assert drawn == [[], list(range(8)), list(range(8)), [0, 9, 10, 11]]
    first = fit(cfg, plan, stop_after, tmp_path / "stop.ckpt")
    assert first == unbroken[:stop_after]
    assert fit(cfg, plan, ckpt=tmp_path / "stop.ckpt") == unbroken[stop_after:]
