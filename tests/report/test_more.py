# SPDX-License-Identifier: MIT
"""The numbers beside the table: from predictions that are known to a CSV, and older files."""

import csv
import dataclasses
import io

import pytest
import torch

from ltplugins.eval.banks import Features
from ltplugins.eval.options import EvalConfig
from ltplugins.eval.protocol import evaluate_features
from ltplugins.report.evaluated import RunResult, group_runs
from ltplugins.report.more import more_numbers, numbers_csv
from ltplugins.report.table import summarise


def a_run(name: str, wrong: int) -> RunResult:
    """A classifier that takes so many of the ten images of class 2 for class 0, quite sure."""
    targets = torch.arange(3).repeat_interleave(10)
    says = targets.clone()
    says[20 : 20 + wrong] = 0
    logits = 30 * torch.nn.functional.one_hot(says, 3).float()
    cfg = EvalConfig(knn=None, linear=None)
    test = Features(logits, targets)
    found = evaluate_features(None, None, test, [50, 20, 5], cfg, lambda feats: feats)
    return RunResult(name, found, group_key="method")


def test_known_numbers_reach_the_table_and_the_csv() -> None:
    runs = [a_run("a", 4), a_run("b", 2)]
    rows, [section] = group_runs(runs), summarise(runs)
    [row] = more_numbers(rows, section)
    means = {name: cell.mean for name, cell in row.cells.items()}
    balanced = section.rows[0].cells["balanced"]
    assert balanced.mean == pytest.approx((2.6 / 3 + 2.8 / 3) / 2)
    assert means["min_class"] == pytest.approx(0.7) and row.cells["min_class"].std > 0
    assert means["harmonic"] == pytest.approx((3 / (2 + 1 / 0.6) + 3 / (2 + 1 / 0.8)) / 2)
    assert means["ece"] == pytest.approx(0.1, abs=1e-6)  # sure, and wrong in 4 and 2 of 30
    assert means["ece_many"] == pytest.approx(0, abs=1e-6)
    assert means["ece_few"] == pytest.approx(0.3, abs=1e-6)
    lines = list(csv.DictReader(io.StringIO(numbers_csv(rows, [section]))))
    found = {(line["run"], line["metric"]): line["mean"] for line in lines}
    assert found["a", "taken_few_many"] == "0.4" and found["b", "taken_few_many"] == "0.2"
    assert found["a", "few"] == found["a", "taken_few_few"] == "0.6"
    assert {line["groups"] for line in lines} == {"tercile"}


def test_a_file_without_them_has_no_such_table() -> None:
    run = a_run("a", 4)
    new = dict.fromkeys(("harmonic", "min_class", "ece", "group_ece", "confusion"))
    run.results.protocols["classifier"] = dataclasses.replace(
        run.results.protocols["classifier"], **new
    )
    rows, [section] = group_runs([run]), summarise([run])
    assert more_numbers(rows, section) == []
    assert ",ece,,,0\n" in numbers_csv(rows, [section])
    assert "taken_" not in numbers_csv(rows, [section])
