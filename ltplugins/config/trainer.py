# SPDX-License-Identifier: MIT
"""Arguments of Lightning's Trainer, from a run's config."""

import inspect
import logging
from typing import Any

import torch

from ltplugins.config.run import RunConfig

log = logging.getLogger(__name__)

# Of Lightning's, those whose processes are whole copies of the method, started anew.
STRATEGIES = (
    "auto",
    "ddp",
    "ddp_find_unused_parameters_true",
    "ddp_find_unused_parameters_false",
)


def trainer_keys() -> set[str]:
    """Names of the arguments of Lightning's Trainer."""
    from lightning.pytorch import Trainer

    return set(inspect.signature(Trainer.__init__).parameters) - {"self"}


def trainer_arguments(run: RunConfig) -> dict[str, Any]:
    """Arguments for Lightning's Trainer, fitted to this machine; every change is logged.

    A file written for GPUs runs on a machine without one: on the CPU, in full precision.
    """
    kwargs = dict(run.trainer)
    if kwargs.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        devices = kwargs.get("devices", 1)
        count = len(devices) if isinstance(devices, list) else devices
        kwargs.update(accelerator="cpu", devices=count if isinstance(count, int) else 1)
        kwargs["devices"] = max(1, kwargs["devices"])
        log.warning("accelerator=gpu was asked for and none is here: using the CPU.")
    elif isinstance(kwargs.get("devices"), list) and kwargs.get("accelerator") == "cpu":
        kwargs["devices"] = len(kwargs["devices"])
    on_cpu = kwargs.get("accelerator") == "cpu" or not torch.cuda.is_available()
    if on_cpu and str(kwargs.get("precision", "32")).startswith("16"):
        kwargs["precision"] = "32-true"
        log.warning("precision=%s needs a GPU: using 32-true.", run.trainer.get("precision"))
    if on_cpu and kwargs.pop("sync_batchnorm", False) and kwargs.get("devices") not in (1, [0]):
        log.warning("sync_batchnorm needs a GPU: every process normalises its own batch.")
    if kwargs.get("devices") in (1, [0]) and kwargs.get("num_nodes", 1) == 1:
        kwargs["strategy"] = "auto"  # one process needs no process group
    return {k: v for k, v in kwargs.items() if v is not None}
