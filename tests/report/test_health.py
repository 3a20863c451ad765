# SPDX-License-Identifier: MIT
"""The curves of health: one panel for each measure that was logged, and none without any."""

import numpy as np
import pytest

from ltplugins.eval.results import Scores, Sizes
from ltplugins.report import plates, style
from ltplugins.report.evaluated import RunResult
from ltplugins.report.health import TITLES, health_panels

STEPS = list(range(0, 100, 10))


def a_run(name: str, **health: list[float]) -> RunResult:
    scores = Scores(protocols={}, groups={}, class_counts=[3], sizes=Sizes(3, 3, 3), notes=[])
    return RunResult(name, scores, health={k: (STEPS, v) for k, v in health.items()})


def drawn(rows: dict[str, list[RunResult]]) -> dict[str, list[np.ndarray]]:
    """Title -> the lines that are drawn, without those for the legend and the border."""
    with style.theme("test"):
        plate = health_panels(rows)
        assert plate is not None
        figure = plates.join(plate)
    return {
        axis.get_title(loc="left"): [
            np.asarray(line.get_ydata())
            for line in axis.lines
            if len(np.atleast_1d(line.get_ydata())) == len(STEPS)
        ]
        for axis in figure.axes
        if axis.get_visible()
    }


def test_only_what_was_logged_is_drawn() -> None:
    values = np.linspace(0.1, 0.7, 10).tolist()
    found = drawn({"a": [a_run("a", dead=values, rankme=values)], "b": [a_run("b")]})
    assert set(found) == {TITLES["rankme"], TITLES["dead"]}
    [line] = found[TITLES["dead"]]
    np.testing.assert_allclose(line, 100 * np.array(values))  # in percent


def test_two_runs_have_a_mean() -> None:
    runs = [a_run("a", uniformity=[-1.0] * 10), a_run("b", uniformity=[-2.0] * 10)]
    lines = drawn({"row": runs})[TITLES["uniformity"]]
    assert sorted(line[0] for line in lines) == [-2.0, -1.5, -1.0]


@pytest.mark.parametrize("health", [{}, {"unknown": [1.0] * 10}])
def test_without_curves_there_is_no_picture(health: dict) -> None:
    assert health_panels({"a": [a_run("a", **health)]}) is None


def test_shares_stay_between_0_and_100() -> None:
    with style.theme("test"):
        plate = health_panels({"a": [a_run("a", dead=[0.0] * 5 + [1.0] * 5)]})
        assert plate is not None
        [axis] = plates.join(plate).axes
    assert axis.get_ylim() == (0, 100)


def test_a_single_value_is_no_curve() -> None:
    run = a_run("a")
    run.health = {"rankme": ([1], [5.0])}
    assert health_panels({"a": [run]}) is None
