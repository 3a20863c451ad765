# SPDX-License-Identifier: MIT
"""One cell in this process: trained, or trained on, and evaluated."""

import functools
import os
import shutil

import torch
from omegaconf import OmegaConf

from ltplugins.config.literal import refuse_interpolations
from ltplugins.core.door import guarded
from ltplugins.core.errors import UserError
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.balance import balance
from ltplugins.stages.blocks import run_keys, typed_keys
from ltplugins.stages.claims.cells import Cell
from ltplugins.stages.command import PACKAGED, quote
from ltplugins.stages.compose import Composer, compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.logs import set_up_logging
from ltplugins.stages.pretrain import pretrain
from ltplugins.training.balancer import BalanceConfig
from ltplugins.training.faults.ranks import PARENT


def run_cell(cell: Cell, parent: int) -> None:
    """Train and evaluate a cell in a process of its own, which ends when ``parent`` does."""
    os.environ[PARENT] = str(parent)
    torch.set_num_threads(1)
    set_up_logging()
    guarded(lambda: train_and_evaluate(cell))


def train_and_evaluate(cell: Cell) -> None:
    """Train a cell, from its last checkpoint if it has one, and evaluate it.

    Raises:
        UserError: its folder holds a cell of other settings, or no GPU is here.
    """
    if cell.accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("--accelerator cuda: expected a GPU, and torch sees none. Set it to cpu.")
    facts = RunFolder(cell.path).facts
    if facts is None or facts.finished is None:
        cell.note_spell()
        train(cell)
    config = RunFolder(cell.path).config()
    cfg = compose_packaged("evaluate", [f"run={quote(str(cell.path))}"])
    refuse_interpolations(OmegaConf.to_container(config), f"{cell.path}/config.yaml")
    cfg.eval = config.eval
    cfg.device = cell.accelerator
    evaluate(cfg)
    # Of hundreds of cells they would be gigabytes, and what they say is in the results.
    shutil.rmtree(cell.path / "features", ignore_errors=True)


def train(cell: Cell) -> None:
    """Run the cell's stage."""
    if cell.stage == "balance":
        keys = typed_keys(BalanceConfig)
        balance(Composer(PACKAGED, "balance", lambda _: keys).compose(cell.command))
    else:
        pretrain(pretrain_composer().compose(cell.command))


@functools.cache
def pretrain_composer() -> Composer:
    """Composes the cells' configs; what it has read once serves the processes that are forked."""
    return Composer(PACKAGED, "pretrain", run_keys)


def warm_up(cell: Cell) -> None:
    """Read what every cell needs, before the processes are forked; look at the words, too.

    Raises:
        UserError: words that make no config.
    """
    if cell.stage == "pretrain":
        pretrain_composer().compose(cell.command)
    elif cell.of is not None:
        warm_up(cell.of)
