# SPDX-License-Identifier: MIT
"""The files of zoo/results/comparison.md: every method is there, and all take as many steps."""

import pytest
from hydra import compose, initialize_config_dir

from ltplugins.config.data import training_set
from ltplugins.config.resolve import resolve
from ltplugins.data.datamodule import build_datamodule
from ltplugins.methods.registry import METHODS, WRAPPERS
from tests.kit.paths import ROOT

FOLDER = ROOT / "scripts/pretrain/fashion_equal_steps"
STEPS = 840


def steps(cfg) -> int:
    """Optimizer steps of the run; COLT's epochs are longer from its warm-up on."""
    data = build_datamodule(training_set(cfg), cfg.seed)
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


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_it_takes_as_many_steps_as_the_others(path):
    with initialize_config_dir(str(FOLDER), version_base="1.2"):
        cfg = resolve(compose(path.stem))
    assert cfg.method == path.stem
    assert steps(cfg) == STEPS
    # The rate per batch is the same too: it scales with the batch size.
    assert cfg.optimizer.lr * cfg.optimizer.batch_size == pytest.approx(0.5 * 256)


def test_every_wrapper_and_method_takes_part():
    there = {path.stem for path in FOLDER.glob("*.yaml")}
    assert {f"{w}_simclr" for w in WRAPPERS} | {*METHODS, "simclr"} <= there
