# SPDX-License-Identifier: MIT
"""Runs on the ``dali`` engine: trained, broken off, resumed; on arrays and on a folder of JPEGs."""

import json
import logging

import lightning.pytorch as pl
import pytest
import torch

from ltplugins.data.engines.dali.loader import DaliLoader
from ltplugins.data.sources.files import image_folder
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import pretrain
from tests.kit.dali import DALI_MARKS, write_jpegs
from tests.kit.data import loader_of
from tests.kit.runs import assert_same_run, build, interrupted, load, quiet_trainer
from tests.kit.tiny import tiny_config
from tests.kit.views import VIEW

pytestmark = list(DALI_MARKS)
ON_CPU = {"data__engine": "dali", "dali": {"device": "cpu"}, "log_every_n_steps": 1}


def test_a_resumed_run_equals_the_unbroken_one(tmp_path, monkeypatch):
    changes = {**ON_CPU, "max_epochs": 4}
    whole = pretrain(tiny_config(tmp_path, **changes, output_dir=str(tmp_path / "whole")))
    cfg = tiny_config(tmp_path, **changes, output_dir=str(tmp_path / "broken"))
    interrupted(cfg, 2, 2, monkeypatch)
    assert_same_run(whole, pretrain(cfg))


def test_solo_learns_format_trains_on_a_folder_of_jpegs(tmp_path, caplog):
    """``data.format: dali`` with the default device, as solo-learn's files have it."""
    write_jpegs(tmp_path / "train", (12, 6, 4))
    changes = {
        "data__format": "dali",
        "data__train_path": str(tmp_path / "train"),
        "data__val_path": None,
        "max_epochs": 2,
    }
    cfg = tiny_config(tmp_path, **changes)
    del cfg.data.engine
    with caplog.at_level(logging.WARNING, "ltplugins"):
        folder = pretrain(cfg)
    assert "dali.device=gpu, and training is on the CPU" in caplog.text
    assert json.loads((folder / "run.json").read_text())["finished"]
    state = load(folder / "checkpoints/last.ckpt")["state_dict"]
    assert state["gh_memory"].shape == (22, 5)
    # 16 of 22 images an epoch, another 16 in the second: true indexes reach beyond one batch.
    assert 16 <= state["gh_memory_filled"].sum() <= 22
    assert "train_gh_loss_epoch" in read_metrics(folder / "metrics.csv")


class Stop(pl.Callback):
    """What was drawn; stops after a batch, with a checkpoint."""

    def __init__(self, after=None, path=None):
        self.drawn, self.after, self.path = [], after, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        assert isinstance(trainer.train_dataloader, DaliLoader)
        self.drawn.append((trainer.current_epoch, batch[0].tolist(), float(batch[1][0].sum())))
        if len(self.drawn) == self.after:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


def colt(tmp_path):
    return build(tiny_config(tmp_path, "colt_simclr", max_epochs=4, **ON_CPU))


def run(model, data, watch, ckpt=None):
    trainer = quiet_trainer(callbacks=[watch], max_epochs=4)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=ckpt)
    except (KeyboardInterrupt, SystemExit):
        assert watch.after is not None
    return watch


def test_colt_draws_its_growing_subset_and_resumes(tmp_path):
    """5 batches without the pool's images, then 6 with 8 of them."""
    model, data = colt(tmp_path)
    whole = run(model, data, Stop())
    sizes = [sum(epoch == e for epoch, _, _ in whole.drawn) for e in range(4)]
    assert sizes[0] == 5
    assert sizes[1] == sizes[2] == 6
    pool = {i for epoch, batch, _ in whole.drawn for i in batch if i >= 42}
    assert pool
    assert not {i for epoch, batch, _ in whole.drawn for i in batch if i >= 42 and epoch == 0}

    broken, data = colt(tmp_path)
    run(broken, data, Stop(13, tmp_path / "stop.ckpt"))
    again, data = colt(tmp_path)
    rest = run(again, data, Stop(), ckpt=tmp_path / "stop.ckpt")
    assert rest.drawn == whole.drawn[13:]
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_views_of_the_cpu(tmp_path):
    """Written without a GPU at hand: the first machine that has one decides."""
    source = image_folder(write_jpegs(tmp_path))
    batches = []
    for device in ("cpu", "cuda:0"):
        options = {"num_workers": 1, "drop_last": False, "device": device}
        batches.append(list(loader_of(source, [VIEW], engine="dali", **options)))
    for found, expected in zip(*batches, strict=True):
        assert torch.equal(found[0], expected[0])
        for view, other in zip(found[1], expected[1], strict=True):
            assert other.device.type == "cuda"
            assert (view - other.cpu()).abs().mean() < 0.05
