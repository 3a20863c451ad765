# SPDX-License-Identifier: MIT
"""``resume_from_checkpoint``: a run that goes on from another one's checkpoint, by its own config.

Weights, optimiser state, memories and the count of epochs are the checkpoint's. Rates, schedule and
length are the config's, as if the run had had them from the start: at epoch 100 of 400 the rate is
that of a run of 400 epochs. A run's own interrupted training goes on exactly, without this.
"""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ltplugins.catalogue.store import is_zoo
from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.runs.checkpoint import read_checkpoint
from ltplugins.runs.places import LAST_CHECKPOINT, RUN_FILE

_KEY = "resume_from_checkpoint"


@dataclass(frozen=True)
class Start:
    """A checkpoint to go on from.

    Attributes:
        path: of the file.
        epochs: completed in it.
        content: without its ``state_dict``.
        state: the ``state_dict``.
    """

    path: Path
    epochs: int
    content: Mapping[str, Any]
    state: Mapping[str, Tensor]

    @property
    def meta(self) -> Mapping[str, Any]:
        """What a checkpoint of ours says of itself."""
        return self.content.get("ltplugins", {})


def open_start(cfg: RunConfig) -> Start | None:
    """Open what ``resume_from_checkpoint`` names, a checkpoint or a run folder; None without it.

    Raises:
        UserError: nothing there, a file that is no checkpoint of a training, or one that has as
            many epochs as the config asks for.
    """
    if cfg.resume_from_checkpoint is None:
        return None
    if is_zoo(cfg.resume_from_checkpoint):
        raise UserError(
            f"{_KEY}: expected a checkpoint that a run has written, got "
            f"{cfg.resume_from_checkpoint}, which holds a backbone alone. To train on from it: "
            f"backbone.pretrained={cfg.resume_from_checkpoint}."
        )
    path = _file(Path(cfg.resume_from_checkpoint))
    try:
        content = read_checkpoint(path)
    except UserError as error:
        raise UserError(f"{_KEY}: {error} Give a checkpoint that a run has written.") from None
    lacking = [
        k for k in ("epoch", "optimizer_states", "lr_schedulers", "loops") if k not in content
    ]
    if lacking:
        raise UserError(
            f"{_KEY}: {path} holds weights alone, without {', '.join(lacking)}: a training cannot "
            f"go on from it. Give a checkpoint that a run has written."
        )
    epochs = int(content["epoch"]) + 1
    state = content.pop("state_dict")
    start = Start(path, epochs, content, state)
    progress = start.meta.get("progress")
    if progress is not None and progress["epochs"] < epochs:
        raise UserError(
            f"{_KEY}: {path} was stopped within an epoch (step {progress['steps']} of "
            f"{progress['planned_steps']}), where a run cannot go on. Train its config anew, "
            f"without max_steps and fast_dev_run."
        )
    if epochs >= cfg.max_epochs:
        raise UserError(
            f"max_epochs: expected more than the {epochs} epochs that {path} has, got "
            f"{cfg.max_epochs}. It counts them from the first run's start: set it to the total."
        )
    return start


def _file(path: Path) -> Path:
    if path.is_dir() and (path / LAST_CHECKPOINT).exists():
        return path / LAST_CHECKPOINT
    if path.is_dir():
        what = "has no checkpoint yet" if (path / RUN_FILE).exists() else "holds no run"
        raise UserError(f"{_KEY}: {path} {what}. Give a checkpoint, or the folder of a run.")
    if not path.exists():
        raise UserError(
            f"{_KEY}: expected a checkpoint or a run folder, got {path}, which does not exist. "
            f"Leave it out to start anew, or to go on in a run's own folder."
        )
    return path


def require_fit(start: Start, cfg: RunConfig, model: pl.LightningModule) -> None:
    """Refuse a checkpoint of another method, network or optimiser.

    Raises:
        UserError: what the checkpoint has and what the config asks for.
    """
    there: Mapping[str, Any] = start.meta.get("config", {})
    pairs = {
        "method": (there.get("method"), cfg.method),
        "backbone.name": (there.get("backbone", {}).get("name"), cfg.backbone.name),
        "optimizer.name": (there.get("optimizer", {}).get("name"), cfg.optimizer.name),
    }
    for key, (theirs, ours) in pairs.items() if there else ():
        if theirs != ours:
            raise UserError(
                f"{_KEY}: {start.path} has {key} {theirs!r}, and the config says {ours!r}. Set "
                f"{key}={theirs}, or leave {_KEY} out."
            )
    own = dict(model.named_parameters())
    wrong = [k for k, v in own.items() if k not in start.state or start.state[k].shape != v.shape]
    if wrong:
        raise misfit(start, f"{len(wrong)} of its parameters, such as {wrong[0]}, are not there")


def misfit(start: Start, problem: str) -> UserError:
    """The refusal of a checkpoint that is of another network."""
    return UserError(
        f"{_KEY}: {start.path} does not fit this method and network: {problem}, or of another "
        f"shape. Give the config that it was trained with, or leave {_KEY} out."
    )


class NewSchedule(Callback):
    """Puts the config's own rates in the place of those that a checkpoint brings along."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self._groups: list[list[dict[str, Any]]] = []
        self._schedules: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what the config says, before the checkpoint's state is loaded.

        Raises:
            UserError: the optimiser's groups are others.
        """
        states = self.start.content["optimizer_states"]
        theirs = [[len(g["params"]) for g in state["param_groups"]] for state in states]
        ours = [[len(g["params"]) for g in opt.param_groups] for opt in trainer.optimizers]
        if theirs != ours:
            raise UserError(
                f"{_KEY}: the optimiser of {self.start.path} has other groups of parameters. Give "
                f"the optimizer block and the method_kwargs that it was trained with."
            )
        self._groups = [
            [{k: v for k, v in group.items() if k != "params"} for group in opt.param_groups]
            for opt in trainer.optimizers
        ]
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        self._schedules = [copy.deepcopy(schedule.state_dict()) for schedule in schedules]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the config's schedule to where the checkpoint's epochs have taken it."""
        for opt, groups in zip(trainer.optimizers, self._groups, strict=True):
            for group, fresh in zip(opt.param_groups, groups, strict=True):
                group.update(fresh)
        for config, fresh in zip(trainer.lr_scheduler_configs, self._schedules, strict=True):
            config.scheduler.load_state_dict(fresh)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch expects a step of the optimiser before
                for _ in range(self._ticks(trainer, config.interval)):
                    config.scheduler.step()  # type: ignore[call-arg]

    def _ticks(self, trainer: pl.Trainer, interval: str) -> int:
        if interval == "epoch":
            return self.start.epochs
        assert trainer.max_epochs
        per_epoch = trainer.estimated_stepping_batches / trainer.max_epochs
        return round(self.start.epochs * per_epoch)
