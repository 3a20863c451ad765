# SPDX-License-Identifier: MIT
"""Rows are repetitions of one experiment alone; their names say what tells them apart."""

from typing import Any

import pytest

from ltplugins.config.identity import experiment
from ltplugins.report.evaluated import RunResult
from ltplugins.report.rows import Trait, name_rows, progress_mark
from ltplugins.runs.facts import Progress
from tests.report.test_table import results

DONE = Progress(30, 30, 300, 300)


def run(name: str, pair: str, progress: Progress | None = DONE) -> RunResult:
    return RunResult(name, results(0.3), "simclr", pair, short_name="tiny", progress=progress)


def rows(runs: list[RunResult], *traits: dict[str, Any], given: Any = None) -> list[str]:
    """The rows of runs; a trait is a value, or the arguments of one."""
    all_traits = {
        r.name: {
            key: Trait(*value) if isinstance(value, tuple) else Trait(value, str(value))
            for key, value in {**own, "progress": _mark(r)}.items()
        }
        for r, own in zip(runs, traits, strict=True)
    }
    name_rows(runs, all_traits, given or {})
    return [r.row_name for r in runs]


def _mark(run: RunResult) -> tuple[Any, ...]:
    mark = progress_mark(run.progress)
    return (mark, mark, True, True)


def test_repetitions_are_one_row() -> None:
    assert rows([run("a", "s0"), run("b", "s1")], {"lr": 0.5}, {"lr": 0.5}) == ["simclr"] * 2


def test_other_settings_are_other_rows_and_named() -> None:
    runs = [run("a", "s0"), run("b", "s1"), run("c", "s2")]
    one, two = {"optimizer.lr": 0.5, "max_epochs": 60}, {"optimizer.lr": 0.5, "max_epochs": 1}
    assert rows(runs, one, two, one) == [
        "simclr (max_epochs=60)",
        "simclr (max_epochs=1)",
        "simclr (max_epochs=60)",
    ]


def test_keys_of_one_last_name_are_told_in_full() -> None:
    first = {"optimizer.name": "sgd", "backbone.name": "resnet18"}
    second = {"optimizer.name": "lars", "backbone.name": "resnet50"}
    assert rows([run("a", "s0"), run("b", "s1")], first, second) == [
        "simclr (optimizer.name=sgd, backbone.name=resnet18)",
        "simclr (optimizer.name=lars, backbone.name=resnet50)",
    ]


def test_more_than_four_keys_are_counted_and_folders_tell_the_rest() -> None:
    keys = "abcdef"
    traits = [dict.fromkeys(keys, 0), dict.fromkeys(keys, 1), {**dict.fromkeys(keys, 0), "f": 1}]
    names = rows([run(f"runs/{i}", f"s{i}") for i in range(3)], *traits)
    assert names[1] == "simclr (a=1, b=1, c=1, d=1, and 2 more keys)"
    assert names[0] != names[2] and "runs/0" in names[0] and "runs/2" in names[2]


def test_data_are_compared_by_what_they_are() -> None:
    def at(place: str, value: str | None) -> dict[str, Any]:
        return {"data.train_path": (value, place, value is not None, True)}

    pair = [run("a", "s0"), run("b", "s1")]
    assert rows(pair, at("here", "abc"), at("there", "abc")) == ["simclr"] * 2
    pair = [run("a", "s0"), run("b", "s1")]
    assert rows(pair, at("here", "abc"), at("there", "xyz")) == [
        "simclr (train_path=here)",
        "simclr (train_path=there)",
    ]
    # Exchanged in place.
    pair = [run("a", "s0"), run("b", "s1")]
    assert rows(pair, at("here", "abcdefgh"), at("here", "xyzuvwst")) == [
        "simclr (train_path=here, contents abcdef)",
        "simclr (train_path=here, contents xyzuvw)",
    ]
    # An older run does not know what its data were: the place decides.
    pair = [run("a", "s0"), run("b", "s1")]
    assert rows(pair, at("here", None), at("here", "abc")) == ["simclr"] * 2


def test_a_protocol_that_one_run_lacks_does_not_part_them() -> None:
    with_it = {"eval.linear.grid": "[1]", "eval.seeds": "[0]"}
    assert rows([run("a", "s0"), run("b", "s1")], with_it, {"eval.seeds": "[0]"}) == ["simclr"] * 2
    other = {"eval.linear.grid": "[2]", "eval.seeds": "[0]"}
    assert len(set(rows([run("a", "s0"), run("b", "s1")], with_it, other))) == 2


def test_unfinished_runs_are_marked() -> None:
    short = Progress(2, 30, 20, 300)
    assert rows([run("a", "s0", short)], {}) == ["simclr (2/30 epochs)"]
    assert (
        rows([run("a", "s0", short), run("b", "s1", short)], {}, {}) == ["simclr (2/30 epochs)"] * 2
    )
    assert rows([run("a", "s0", short), run("b", "s1")], {}, {}) == [
        "simclr (2/30 epochs)",
        "simclr",
    ]
    given = {"a": "sweep row", "b": "sweep row"}
    assert rows([run("a", "s0", short), run("b", "s1")], {"x": 1}, {"x": 2}, given=given) == [
        "sweep row (2/30 epochs)",
        "sweep row",
    ]


@pytest.mark.parametrize(
    ("progress", "mark"),
    [
        (None, ""),
        (DONE, ""),
        (Progress(2, 30, 20, 300), "2/30 epochs"),
        (Progress(0, 30, 3, 300), "0/30 epochs, 3/300 steps"),
    ],
)
def test_marks(progress: Progress | None, mark: str) -> None:
    assert progress_mark(progress) == mark


def test_runs_of_one_split_and_seed_stand_under_their_names() -> None:
    runs = [run("a/tiny", "s0"), run("b/tiny", "s0")]
    assert rows(runs, {}, {}) == ["simclr (a/tiny)", "simclr (b/tiny)"]


def test_what_an_experiment_is() -> None:
    config = {
        "name": "x",
        "seed": 3,
        "max_epochs": 5,
        "output_dir": "runs/x",
        "devices": 2,
        "data": {
            "dataset": "custom",
            "train_path": "here",
            "num_workers": 4,
            "imbalance": {"kind": "exp", "class_order": 2, "split_seed": 1},
        },
        "method_kwargs": {"temperature": 0.2},
        "balance": {"run": "runs/y", "epochs": 10, "seed": 1},
        "eval": {"seeds": [0]},
    }
    assert experiment(config) == {
        "max_epochs": 5,
        "data.dataset": "custom",
        "data.imbalance.kind": "exp",
        "method_kwargs.temperature": 0.2,
        "balance.epochs": 10,
    }
