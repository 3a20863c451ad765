# SPDX-License-Identifier: MIT
"""The sweep of zoo/results/comparison.md: every method is there, and all take as many steps."""

import functools

import pytest

from ltplugins.config.data import training_set
from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.data.datamodule import build_datamodule
from ltplugins.stages.sweep import plan
from tests.kit.paths import ROOT
from tests.kit.results import compared

SWEEP = ["--config-path", str(ROOT / "scripts/sweep"), "--config-name", "equal_steps"]
NAMES = sorted(compared())
STEPS = 840


def steps(run: RunConfig) -> int:
    """Optimizer steps of the run; COLT's epochs are longer from its warm-up on."""
    data, cfg = build_datamodule(training_set(run), run.seed), run.host
    first = cfg.max_epochs
    chosen = 0
    if data.num_ood:
        first = cfg.method_kwargs.colt.warmup
        chosen = int(data.num_samples * float(cfg.method_kwargs.colt.budget.rstrip("%")) / 100)
    if cfg.data.sampler == "shuffle" or data.num_ood:
        short, long = data.batches_per_epoch(0), data.batches_per_epoch(chosen)
    else:
        short = long = len(data.train_dataloader())
    return first * short + (cfg.max_epochs - first) * long


@functools.cache
def members():
    """The runs of the sweep by method, for one of its seeds."""
    return {member.row: member for member in plan(["--multirun", *SWEEP, "seed=1"], "").members}


@pytest.mark.parametrize("name", NAMES)
def test_it_takes_as_many_steps_as_the_others(name):
    cfg = members()[name].cfg
    assert cfg.method == name
    assert steps(cfg) == STEPS
    # The rate per batch is the same too: it scales with the batch size.
    assert cfg.optimizer.lr * cfg.optimizer.batch_size == pytest.approx(0.5 * 256)


def test_all_that_has_results_takes_part_and_nothing_else():
    assert set(members()) == set(NAMES)
    assert len(NAMES) >= 13


def test_a_member_is_started_by_one_command(tmp_path):
    member = members()["gml"]
    assert member.name == "gml"
    words = member.arguments(tmp_path)
    assert words[:4] == SWEEP
    assert words[4:6] == ["~members", "method=gml"]
    assert "method_kwargs.queue_size=1024" in words
    assert words[-2:] == ["seed=1", f"output_dir='{tmp_path}/gml'"]


def test_a_list_that_is_none_is_refused(tmp_path):
    (tmp_path / "own.yaml").write_text("members: {method: gml}\n")
    with pytest.raises(UserError, match="members: expected a list of lines such as"):
        plan(["-m", "--config-path", str(tmp_path), "--config-name", "own"], "")
