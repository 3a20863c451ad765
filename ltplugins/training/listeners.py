# SPDX-License-Identifier: MIT
"""A user's own loggers and callbacks, made by Hydra's instantiate or by their names."""

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from lightning.pytorch import loggers
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.runs.folder import RunFolder

log = logging.getLogger(__name__)


def build_loggers(cfg: RunConfig, run: RunFolder) -> list[Logger]:
    """The loggers beside metrics.csv.

    Raises:
        UserError: a package that is not installed, a block that makes no logger.
    """
    given = list(cfg.loggers)
    if cfg.wandb.enabled and "wandb" not in given:
        if importlib.util.find_spec("wandb") is not None:
            given.append("wandb")
        else:
            log.warning("wandb.enabled is true and wandb is not installed: metrics.csv only.")
    return [
        _named_logger(entry, cfg, run) if isinstance(entry, str) else _make("logger", entry, Logger)
        for entry in given
    ]


def _named_logger(name: str, cfg: RunConfig, run: RunFolder) -> Logger:
    """A logger with the run's name, into the run's folder where it writes files."""
    try:
        if name == "tensorboard":
            return loggers.TensorBoardLogger(run.path, name="tensorboard", version="")
        if name == "mlflow":
            return loggers.MLFlowLogger(
                experiment_name=cfg.method, run_name=cfg.name, save_dir=str(run.path / "mlruns")
            )
        project, entity, offline = cfg.wandb.project, cfg.wandb.entity, cfg.wandb.offline
        return loggers.WandbLogger(name=cfg.name, project=project, entity=entity, offline=offline)
    except ImportError:
        raise UserError(
            f"logger: {name} needs a package that is not installed. Run pip install {name}, or "
            f"leave it out: metrics.csv is written in any case."
        ) from None


def build_callbacks(cfg: RunConfig, run: RunFolder) -> list[pl.Callback]:
    """The callbacks that a config names; checkpoints go into the run's folder.

    Raises:
        UserError: a block that makes no callback.
    """
    return [_make("callbacks", _placed(entry, run), pl.Callback) for entry in cfg.callbacks]


def _placed(block: Mapping[str, Any], run: RunFolder) -> Mapping[str, Any]:
    """The block of a ModelCheckpoint with its folder; ``last.ckpt`` there is the run's own."""
    if block["_target_"].rpartition(".")[2] != ModelCheckpoint.__name__:
        return block
    if block.get("save_last"):
        raise UserError(
            "callbacks: save_last of ModelCheckpoint: expected nothing, got "
            f"{block['save_last']!r}. Leave it out: checkpoints/last.ckpt is always written."
        )
    return {"dirpath": str(run.checkpoints), **block}


def _make(key: str, block: Mapping[str, Any], kind: type) -> Any:
    target = block["_target_"]
    try:
        found = get_object(target)
        if isinstance(found, type) and issubclass(found, kind):  # nothing else is called
            return instantiate(block)
    except (HydraException, ImportError, TypeError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"{key}: {target} cannot be made: {reason}") from None
    raise UserError(
        f"{key}: expected the path of a class of Lightning's {kind.__name__}, got {target}, which "
        f"is none."
    )
