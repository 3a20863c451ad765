# SPDX-License-Identifier: MIT
"""The papers' protocols: each composes, names its source, and says in the results what differs."""

import re

import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.eval.banks import Features
from ltplugins.eval.options import EvalConfig
from ltplugins.eval.protocol import evaluate_features
from ltplugins.stages.compose import compose_packaged
from tests.kit.paths import ROOT

FOLDER = ROOT / "ltplugins/conf/eval"
PRESETS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "default")
COUNTS = [200, 60, 10]


def options(name: str) -> EvalConfig:
    cfg = compose_packaged("evaluate", ["run=x", f"eval={name}"])
    return parse(EvalConfig, OmegaConf.to_container(cfg.eval), "eval")


def images(per_class: int) -> Features:
    targets = torch.arange(3).repeat_interleave(per_class)
    noise = torch.randn(len(targets), 4, generator=torch.Generator().manual_seed(per_class))
    return Features(5 * torch.eye(3, 4)[targets] + noise, targets)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_where_it_is_from_and_where_it_differs(name: str) -> None:
    head = (FOLDER / f"{name}.yaml").read_text()
    assert re.search(r"^# .*[\w-]+/[\w-]+ at [0-9a-f]{7}", head, re.MULTILINE)
    remarks = options(name).remarks
    assert remarks and all(text.startswith(f"eval={name}: ") for text in remarks)


@pytest.mark.parametrize(
    ("name", "protocols", "rules"),
    [
        ("sdclr", ["linear_full", "linear_1percent"], ["tercile", "threshold"]),
        ("gh", ["linear_full"], ["tercile"]),
        ("gml", ["classifier"], ["threshold"]),
    ],
)
def test_what_a_preset_runs(name: str, protocols: list[str], rules: list[str]) -> None:
    cfg = options(name)
    given = images(200), images(50), COUNTS, cfg, lambda feats: feats[:, :3]
    results = evaluate_features(None, *given)
    assert list(results.protocols) == protocols
    assert list(results.groups) == rules
    assert results.notes[-len(cfg.remarks) :] == cfg.remarks
    if name == "sdclr":  # 1% of each class, three draws
        few = results.protocols["linear_1percent"]
        assert (few.n_train, few.n) == (6, 3)
        assert results.protocols["linear_full"].n == 1


def test_all_presets_are_tested() -> None:
    assert PRESETS == ["gh", "gml", "sdclr"]


def test_the_classifiers_protocol_needs_a_classifier() -> None:
    with pytest.raises(UserError, match="method has no classifier of its own"):
        evaluate_features(None, images(200), images(50), COUNTS, options("gml"))
