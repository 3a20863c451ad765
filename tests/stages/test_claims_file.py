# SPDX-License-Identifier: MIT
"""The packaged claims: every cell composes, and what is called equal is equal."""

import functools
from pathlib import Path

import pytest

from ltplugins.config.data import training_set
from ltplugins.config.resolve import resolve
from ltplugins.data.datamodule import build_datamodule
from ltplugins.host import prepare
from ltplugins.host.build import build_model
from ltplugins.methods.parts.durations import to_epochs, to_images
from ltplugins.stages.blocks import config_blocks, typed_keys
from ltplugins.stages.claims.book import read_book
from ltplugins.stages.claims.cells import Cell, Setting, plan_cells
from ltplugins.stages.claims.work import pretrain_composer
from ltplugins.stages.command import PACKAGED
from ltplugins.stages.compose import Composer
from ltplugins.training.balancer import BalanceConfig
from ltplugins.training.check import check_run
from tests.kit.paths import ROOT

BOOK = read_book(ROOT / "scripts/sweep/claims.yaml")
CLAIMS = {claim.name: claim for claim in BOOK.claims}


@functools.cache
def steps(cell: Cell) -> int:
    """Steps of a cell, whose model is built; COLT's epochs are longer from its warm-up on."""
    prepare()
    run = resolve(pretrain_composer().compose(cell.command), config_blocks)
    check_run(run)
    images = training_set(run)
    if cell.of is None:  # a student opens its teacher's run
        build_model(run.with_counts(images.num_samples, images.num_classes).host, 1, False)
    data = build_datamodule(images, run.seed)
    if not data.num_ood:
        return run.max_epochs * len(data.train_dataloader())
    options = run.host.method_kwargs.colt
    chosen = to_images(options.budget, data.num_samples)
    assert chosen <= data.num_ood
    first = round(to_epochs(options.warmup, run.max_epochs))
    plain, grown = data.batches_per_epoch(0), data.batches_per_epoch(chosen)
    return first * plain + (run.max_epochs - first) * grown


@pytest.mark.parametrize("name", CLAIMS)
def test_both_sides_compose_and_take_equal_steps_where_it_says_so(name):
    cells = plan_cells(BOOK, [CLAIMS[name]], Setting(Path("cells"), pairs=1))
    trained = [cell for cell in cells if cell.stage == "pretrain"]
    found = {cell.name: steps(cell) for cell in trained}
    assert (len(set(found.values())) == 1) == (CLAIMS[name].equal == "steps"), found


def test_second_stages_compose():
    cells = plan_cells(BOOK, BOOK.claims, Setting(Path("cells"), pairs=1))
    second = [cell for cell in cells if cell.stage == "balance"]
    keys = typed_keys(BalanceConfig)
    for cell in second:
        cfg = Composer(PACKAGED, "balance", lambda _: keys).compose(cell.command)
        assert cfg.run == f"cells/cpu/{cell.of.name}"
    assert len(second) == 1


def test_the_seed_papers_are_all_there():
    methods = {w for arm in BOOK.arms.values() for w in arm.words if w.startswith("method=")}
    assert {f"method={m}" for m in ("gh_simclr", "gh_byol", "colt_simclr", "mttv")} <= methods
    assert {f"method={m}" for m in ("mv_simclr", "iccl", "gml", "ts_simclr")} <= methods
    assert {f"method={m}" for m in ("sdclr_simclr", "bcl_simclr", "focal", "supcon")} <= methods
    used = {side[0] for claim in BOOK.claims for side in claim.sides()}
    used |= {BOOK.arms[name].of for name in used}
    assert used >= set(BOOK.arms)
