# SPDX-License-Identifier: MIT
"""The packaged claims: every cell composes, and what is called equal is equal."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ltplugins.config.data import training_set
from ltplugins.config.resolve import resolve
from ltplugins.data.datamodule import build_datamodule
from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.build import build_source
from ltplugins.host import prepare
from ltplugins.host.build import build_model
from ltplugins.methods.parts.durations import to_epochs, to_images
from ltplugins.stages.blocks import config_blocks, typed_keys
from ltplugins.stages.claims.book import read_book
from ltplugins.stages.claims.cells import Cell, Setting, make_cell, plan_cells
from ltplugins.stages.claims.work import pretrain_composer
from ltplugins.stages.command import PACKAGED
from ltplugins.stages.compose import Composer
from ltplugins.training.balancer import BalanceConfig
from ltplugins.training.check import check_run
from tests.kit.paths import ROOT

BOOK = read_book(ROOT / "scripts/sweep/claims.yaml")
CLAIMS = {claim.name: claim for claim in BOOK.claims}
WHY = read_book(ROOT / "scripts/sweep/gh_why.yaml")


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
    """With the stages and teachers before; of a balancing its words say what it takes."""
    claim = CLAIMS[name]
    sides = [make_cell(BOOK, claim.data, side, 0, Setting(Path("cells"))) for side in claim.sides()]
    found = [
        [
            steps(cell) if cell.stage == "pretrain" else BOOK.arms[arm].words
            for cell in filter(None, (last.of, last))
        ]
        for last, (arm, _) in zip(sides, claim.sides(), strict=True)
    ]
    assert (found[0] == found[1]) == (claim.equal == "steps"), found
    if claim.equal == "epochs":
        assert len(found[0]) != len(found[1])
        assert claim.base_epochs is None


def test_second_stages_compose():
    cells = plan_cells(BOOK, BOOK.claims, Setting(Path("cells"), pairs=1))
    second = [cell for cell in cells if cell.stage == "balance"]
    keys = typed_keys(BalanceConfig)
    for cell in second:
        cfg = Composer(PACKAGED, "balance", lambda _: keys).compose(cell.command)
        assert cfg.run == f"cells/cpu/{cell.of.name}"
    assert len(second) == 2


def test_the_seed_papers_are_all_there():
    methods = {w for arm in BOOK.arms.values() for w in arm.words if w.startswith("method=")}
    assert {f"method={m}" for m in ("gh_simclr", "gh_byol", "colt_simclr", "mttv")} <= methods
    assert {f"method={m}" for m in ("mv_simclr", "iccl", "gml", "ts_simclr")} <= methods
    assert {f"method={m}" for m in ("sdclr_simclr", "bcl_simclr", "focal", "supcon")} <= methods
    used = {side[0] for claim in BOOK.claims for side in claim.sides()}
    used |= {BOOK.arms[name].of for name in used}
    assert used >= set(BOOK.arms)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """A working folder with the files of ``hold_out.py``."""
    folder = tmp_path_factory.mktemp("why")
    script = ROOT / "scripts/sweep/hold_out.py"
    subprocess.run([sys.executable, script], cwd=folder, check=True, capture_output=True)
    return folder


def test_why_compares_what_differs_in_one_thing(held_out, monkeypatch):
    """At equal steps; the arms' common words and rates are those of the claims."""
    monkeypatch.chdir(held_out)
    cells = {cell.name: cell for cell in plan_cells(WHY, WHY.claims, Setting(Path(), pairs=1))}
    words = {name.split(",")[1]: set(cell.words) for name, cell in cells.items()}
    for claim in WHY.claims:
        assert len({steps(cells[f"held_out,{arm},e{n},p1"]) for arm, n in claim.sides()}) == 1
        ours, base = words[claim.ours], words[claim.base]
        of_gh = (ours - base) - (words["gh"] - words["simclr"])
        of_both = base - words["simclr"]
        assert ours - words["gh"] == of_gh | of_both
        assert (len(of_gh), bool(of_both)) in (
            [(0, False)] if claim.name == "packaged" else [(1, False), (0, True)]
        )
    assert len({claim.ours for claim in WHY.claims}) == len(WHY.claims)
    assert set(BOOK.common) - set(WHY.common) == {"name=claims"}


def test_what_is_held_out_is_neither_trained_on_nor_a_test_image(held_out):
    parts = {name: np.load(held_out / f"runs/hold_out/{name}.npz") for name in ("train", "val")}
    assert {name: np.bincount(part["labels"]).tolist() for name, part in parts.items()} == {
        "train": [1300] * 10,
        "val": [200] * 10,
    }
    pool = build_source(DataConfig("fashion_pack"), "train").images
    seen = np.concatenate([part["images"] for part in parts.values()])
    assert sorted(map(bytes, seen)) == sorted(map(bytes, pool))  # each once
