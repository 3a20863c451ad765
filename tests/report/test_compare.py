# SPDX-License-Identifier: MIT
"""Who leads, by how much, and what cannot be told: by hand on three rows."""

from dataclasses import replace

import pytest

from ltplugins.core.errors import UserError
from ltplugins.report.compare import (
    answer,
    caution,
    choose_baseline,
    effects,
    families,
    in_words,
    sides,
)
from ltplugins.report.evaluated import RunResult, group_runs
from tests.report.test_table import results

KNN = "knn_k20_T0.07"
MINUS = "\N{MINUS SIGN}"


def rows(**few: list[float]) -> dict[str, list[RunResult]]:
    """A row for each method, with its accuracy on few of each pair."""
    return group_runs(
        [
            RunResult(f"{method}{k}", results(value), method, f"p{k}")
            for method, values in few.items()
            for k, value in enumerate(values)
        ]
    )


FAR = rows(
    base=[0.30, 0.50, 0.40, 0.35, 0.45, 0.42],
    ahead=[0.34, 0.56, 0.45, 0.39, 0.51, 0.47],  # +4 +6 +5 +4 +6 +5
    near=[0.33, 0.57, 0.44, 0.41, 0.50, 0.46],  # +3 +7 +4 +6 +5 +4
    behind=[0.27, 0.46, 0.37, 0.31, 0.42, 0.39],  # -3 -4 -3 -4 -3 -3
)


def test_effects_are_pair_by_pair_and_the_highest_first() -> None:
    found = effects(FAR, KNN, "tercile", "few", "base")
    assert [effect.row for effect in found] == ["ahead", "near", "behind"]
    assert found[0].points == pytest.approx([0.04, 0.06, 0.05, 0.04, 0.06, 0.05])
    # The mean of 5 points, by Student's t of 5 degrees of freedom: 2.571 * 0.894 / sqrt(6).
    assert found[0].found.effect == pytest.approx(0.05)
    assert found[0].found.low == pytest.approx(0.05 - 0.00939, abs=1e-5)
    assert found[2].found.effect == pytest.approx(-0.0333, abs=1e-4)


def test_a_leader_with_a_rival() -> None:
    found = answer(FAR, KNN, "tercile", "few", "base")
    assert found is not None
    assert (found.leader, found.rivals, found.pairs) == ("ahead", ["near"], 6)
    assert in_words(found) == (
        "ahead leads with 45.3 %, +5.0 points (95 % interval +4.1 to +5.9, 6 pairs) on base. "
        "Not distinguishable from it: near."
    )
    assert sides(found) == "Against base, above it: ahead, near; below it: behind."
    assert "no claim" not in caution([found])


def test_the_baseline_itself_may_lead() -> None:
    found = answer(rows(base=[0.5, 0.6], low=[0.4, 0.51]), KNN, "tercile", "few", "base")
    assert found is not None
    assert found.leader == "base" and found.level == pytest.approx(0.55)
    assert in_words(found).startswith(f"base leads with 55.0 %; next is low, {MINUS}9.5 points")
    assert "With 2 pairs this is what these runs show, no claim" in caution([found])


def test_nothing_is_told_apart() -> None:
    found = answer(rows(a=[0.5, 0.6], b=[0.6, 0.5], c=[0.4, 0.7]), KNN, "tercile", "few", "a")
    assert found is not None
    assert in_words(found).endswith("Not distinguishable from any other row.")
    assert sides(found) == "No row is distinguishable from a."


def test_one_pair_has_no_interval() -> None:
    found = answer(rows(a=[0.5], b=[0.6]), KNN, "tercile", "few", "a")
    assert found is not None
    assert found.effects[0].found.low is None and found.rivals == ["a"]
    assert "+10.0 points (one pair) on a. One pair of runs tells no method" in in_words(found)
    assert "A verdict needs several seeds" in caution([found])


def test_rows_without_a_common_pair_or_group_have_no_answer() -> None:
    apart = rows(a=[0.5], b=[0.6])
    apart["b"][0].pair_key = "another"
    assert answer(apart, KNN, "tercile", "few", "a") is None
    apart["b"][0].pair_key = "p0"
    apart["b"][0].results = replace(results(None))
    assert answer(apart, KNN, "tercile", "few", "a") is None
    assert answer(apart, KNN, "tercile", "overall", "a") is not None


def test_methods_that_saw_labels_are_compared_with_their_own() -> None:
    found = rows(simclr=[0.5], gml=[0.6], gh=[0.4], iccl=[0.7])
    for name in ("gml", "iccl"):
        found[name][0].sees_labels = True
    (plain, base), (labelled, other) = families(found, "simclr")
    assert (list(plain), base) == (["simclr", "gh"], "simclr")
    assert (list(labelled), other) == (["gml", "iccl"], "gml")
    # A baseline that saw labels comes first, with its own.
    assert [base for _, base in families(found, "iccl")] == ["iccl", "simclr"]


def test_the_baseline_must_be_a_row() -> None:
    assert choose_baseline(FAR, None) == "base" and choose_baseline(FAR, "near") == "near"
    with pytest.raises(UserError, match=r"row for --baseline 'nera'. Did you mean 'near'"):
        choose_baseline(FAR, "nera")
