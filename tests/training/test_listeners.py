# SPDX-License-Identifier: MIT
"""A user's loggers and callbacks: made, used, kept in the run's folder, or refused in one line."""

import csv
import importlib.util

import pytest
from lightning.pytorch.loggers import Logger

from ltplugins.config.listeners import leave_named_loggers
from ltplugins.core.errors import UserError
from ltplugins.runs.checkpoint import open_run
from ltplugins.runs.facts import Progress
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.pretrain import pretrain
from tests.kit.tiny import tiny_config

CALLBACKS = "lightning.pytorch.callbacks"
EARLY = {"_target_": f"{CALLBACKS}.EarlyStopping", "monitor": "train_nce_loss_epoch", "mode": "max"}
BEST = {"_target_": f"{CALLBACKS}.ModelCheckpoint", "monitor": "val_acc1", "save_top_k": 2}


class Heard(Logger):
    """A logger that keeps what it is told."""

    steps: list[int] = []  # noqa: RUF012 - read by the test after Hydra has made it

    @property
    def name(self):
        return "heard"

    @property
    def version(self):
        return 0

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.steps.append(step)


def test_a_loss_that_falls_ends_a_run_that_waits_for_it_to_rise(tmp_path):
    """Early stopping, best checkpoints and a logger of one's own, in one run."""
    early = {**EARLY, "patience": 1, "min_delta": 1e6}
    logger = [{"_target_": f"{__name__}.Heard"}, "csv"]
    cfg = tiny_config(tmp_path, "simclr", max_epochs=9, callbacks=[early, BEST], logger=logger)
    path = pretrain(cfg)
    facts = RunFolder(path).read()
    assert (facts.finished, facts.stopped) == (None, "EarlyStopping")
    assert facts.progress == Progress(2, 9, 10, 45)
    best = {p.name for p in (path / "checkpoints").glob("*.ckpt")}
    own = {"last.ckpt", "previous.ckpt"}
    assert best == {*own, "epoch=0-step=5.ckpt", "epoch=1-step=10.ckpt"}
    assert open_run(path / "checkpoints/epoch=0-step=5.ckpt").progress == Progress(1, 9, 5, 45)
    assert max(Heard.steps) == 9
    before = (path / "checkpoints/last.ckpt").stat().st_mtime_ns
    assert pretrain(cfg) == path  # it is over
    assert (path / "checkpoints/last.ckpt").stat().st_mtime_ns == before
    with open(path / "metrics.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert {row["epoch"] for row in rows} == {"0", "1"}
    assert all(int(row["epoch"]) == int(row["step"]) // 5 for row in rows)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"logger": [{"_target_": "no.such.Logger"}]}, "logger: no.such.Logger cannot be made: "),
        ({"callbacks": [{**EARLY, "patienc": 1}]}, "EarlyStopping cannot be made: .*patienc"),
        ({"callbacks": [{"_target_": "builtins.dict"}]}, "expected the path of a class of Light"),
        ({"callbacks": [{**BEST, "save_last": True}]}, "save_last of ModelCheckpoint: expected no"),
        ({"knn_eval": {"enabled": True}, "data__val_path": None}, "knn_eval.enabled: .*val_path"),
        ({"knn_eval": {"enabled": True}, "limit_val_batches": 0}, "limit_val_batches is 0"),
    ],
)
def test_what_cannot_be_made_is_refused_before_a_folder(changes, text, tmp_path):
    with pytest.raises(UserError, match=text):
        pretrain(tiny_config(tmp_path, "simclr", **changes))
    assert not (tmp_path / "run").exists()


def test_a_metric_that_there_is_not_is_named_with_those_that_there_are(tmp_path):
    callbacks = [{**EARLY, "monitor": "train_loss"}]
    with pytest.raises(UserError, match=r"callbacks: .*`train_loss`.*train_nce_loss_epoch"):
        pretrain(tiny_config(tmp_path, "simclr", callbacks=callbacks))


@pytest.mark.parametrize("key", ["logger", "callbacks"])
def test_nothing_but_a_listener_is_called(key, tmp_path):
    """What would do harm is refused before it does it, not for what it returns."""
    harm = {"_target_": "ltplugins.core.files.write_text", "path": str(tmp_path / "owned")}
    with pytest.raises(UserError, match=f"{key}: expected the path of a class of Lightning's"):
        pretrain(tiny_config(tmp_path, "simclr", **{key: [{**harm, "text": "x"}]}))
    assert list(tmp_path.glob("owned")) == []


def test_a_later_stage_keeps_the_loggers_that_are_names(tmp_path):
    """A block may be a stranger's, of whom the run is."""
    cfg = tiny_config(tmp_path, "simclr", logger=["tensorboard", {"_target_": "x.Y"}])
    leave_named_loggers(cfg)
    assert cfg.logger == ["tensorboard"]
    del cfg.logger
    leave_named_loggers(cfg)
    assert "logger" not in cfg


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_refused(name, tmp_path, monkeypatch):
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(UserError, match=f"logger: {name} needs a package .*pip install {name}, or"):
        pretrain(tiny_config(tmp_path, "simclr", logger=name))
    assert not (tmp_path / "run").exists()


def test_tensorboard_writes_into_the_runs_folder(tmp_path):
    pytest.importorskip("tensorboard")
    path = pretrain(tiny_config(tmp_path, "simclr", max_epochs=1, logger="tensorboard"))
    assert list((path / "tensorboard").glob("events.out.tfevents.*"))
