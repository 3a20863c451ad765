# SPDX-License-Identifier: MIT
"""Which images and classes a report shows, and what it says of pictures, each case by hand."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from ltplugins.report import findings, prior, style
from ltplugins.report.curves import curve_names, knn_names
from ltplugins.report.evaluated import RunResult
from ltplugins.report.looks import alone_right, class_looks, comparable
from ltplugins.report.thumbs import Point, Thumbs, points_svg
from tests.kit.study import METHODS, make_run, study
from tests.report.test_table import results

KNN = "knn_k20_T0.07"


def voted(row: str, preds: list[int], pair: str = "p") -> RunResult:
    """A run on four images of the classes 0, 1, 2, 2, with 100, 10 and 1 training images."""
    run = RunResult(row, results(0.3), pair_key=pair)
    gallery = make_run("simclr", 1).gallery
    assert gallery is not None
    targets = np.array([0, 1, 2, 2])
    run.gallery = replace(
        gallery, targets=targets, places=np.arange(4), preds=np.array(preds), queries=targets[:0]
    )
    return run


def test_what_one_row_alone_gets_right_rare_classes_first() -> None:
    runs = {"a": voted("a", [0, 1, 0, 2]), "b": voted("b", [0, 0, 2, 0]), "c": voted("c", [0] * 4)}
    found, votes = alone_right(runs)
    assert {row: places.tolist() for row, places in found.items()} == {
        "a": [3, 1],
        "b": [2],
        "c": [],
    }
    assert votes == {"all": 1, "none": 0}


def test_runs_are_compared_on_the_pair_that_most_rows_share() -> None:
    right = [0, 1, 2, 2]
    rows = {
        "a": [voted("a1", right, "p"), voted("a2", right, "q")],
        "b": [voted("b", right, "q")],
        "c": [voted("c", right, "r")],
    }
    found = comparable(rows, "a")
    assert {row: run.name for row, run in found.items()} == {"a": "a2", "b": "b"}
    rows["b"][0].gallery = None
    assert {row: run.name for row, run in comparable(rows, "a").items()} == {"a": "a1"}
    for run in rows["a"]:
        run.gallery = None
    assert comparable(rows, "a") == {}


def test_classes_are_averaged_over_pairs_of_equal_counts_alone() -> None:
    rows: dict[str, list[RunResult]] = {}
    for run in study(METHODS[:2], 2):
        rows.setdefault(run.row_name, []).append(run)
    looks, pairs = class_looks(rows, KNN, "tercile", "simclr", "gh_simclr")
    assert pairs == 1  # the second has another class order
    counts = [look.count for look in looks]
    assert counts == sorted(counts, reverse=True) and looks[-1].group == "few"
    for run in rows["simclr"] + rows["gh_simclr"]:
        run.results.class_counts[:] = rows["simclr"][0].class_counts
    looks, pairs = class_looks(rows, KNN, "tercile", "simclr", "gh_simclr")
    assert pairs == 2
    for look in looks:
        base, other = (
            np.mean([run.results.protocols[KNN].per_class[look.label] for run in rows[row]])  # type: ignore[arg-type]
            for row in ("simclr", "gh_simclr")
        )
        assert (look.base, look.other) == pytest.approx((base, other))
        assert look.difference == pytest.approx(other - base)
        # Of 2,000 images each: twice the variance of one.
        assert look.reach == pytest.approx(1.96 * (2 * base * (1 - base) / 2000) ** 0.5, rel=0.15)


def test_points_lie_where_the_picture_has_them_and_show_inside_it() -> None:
    figure = Figure(figsize=(4, 3))
    axis = figure.subplots()
    axis.plot([1, 5], [2, 8])
    svg = style.as_svg(figure, "x")
    line = next(p for p in svg.split('d="M ')[1:] if p.count("L") == 1 and "clip-path" in p[:90])
    ends = [float(v) for v in line.split('"')[0].replace("L", " ").split()]
    at = np.array([[1.0, 2.0], [5.0, 8.0]])
    places = axis.transData.transform(at) * 72 / figure.dpi
    places[:, 1] = 3 * 72 - places[:, 1]
    assert places.ravel().tolist() == pytest.approx(ends, abs=0.01)
    image = np.zeros((6, 6, 3), dtype=np.uint8)
    corners = np.array([[0.0, 0.0], [288.0, 216.0]])
    told = points_svg([Point(image, "a <b>")] * 2, corners, (288, 216), Thumbs())
    assert told.count('tabindex="-1"') == 2 and "a &lt;b&gt;" in told
    for x, y in (
        pair.split(")")[0].split() for pair in told.split('"up" transform="translate(')[1:]
    ):
        assert 0 <= float(x) <= 288 - 56 and 0 <= float(y) <= 216 - 70


def test_a_picture_is_described_once() -> None:
    thumbs = Thumbs()
    one, other = (np.full((6, 6, 3), v, dtype=np.uint8) for v in (0, 90))
    assert thumbs.definitions() == ""
    shown = [thumbs.show(image, 'a "b"') for image in (one, other, one.copy())]
    assert shown[0] == shown[2] != shown[1] and "a &quot;b&quot;" in shown[0]
    assert thumbs.definitions().count("<image") == 2


def test_a_prior_is_told_beside_the_true_classes() -> None:
    run = RunResult("gh", results(0.3))  # classes of 100, 10 and 1 images
    shares = np.array([[n / 10 for n in prior.TENTHS], [0.7, 0.9, *[1.0] * 7]])
    run.prior = ([30, 60], shares)
    # Two tenths of three classes are 0.6 of the largest: 60 of 111.
    assert prior.class_shares(run.class_counts)[1] == pytest.approx(60 / 111)
    assert "holds 90 % of the images at the end, the largest fifth of the classes 54 %" in (
        prior.finding({"gh": [run]})
    )
    with style.theme("test"):
        plate = prior.prior_panels({"gh": [run], "other": [RunResult("o", results(0.3))]})
        assert plate is not None
        axis = Figure().subplots()
        [panel] = plate.panels
        panel.draw(axis)
    drawn = [np.asarray(line.get_ydata()) for line in axis.lines]
    assert [len(line) for line in drawn] == [2, 11, 11, 11]
    assert drawn[2][[0, 1, 2, 10]] == pytest.approx([0, 70, 90, 100])


def test_what_maps_and_confusions_show() -> None:
    run = RunResult("a", results(0.3), class_names=["x", "y", "z"])
    run.taken = np.array([[8, 2, 0], [1, 9, 0], [5, 0, 5]])
    assert findings.of_taken({"a": run}) == "a: most often z is taken for x, 50 %."
    # Few is class 2: one of its points lies nearest to its like, the other to a stranger.
    run.embedding = np.array([[0.0, 0], [0.1, 0], [5, 5], [5.1, 5], [0.15, 0.0]])
    run.embedding_targets = np.array([2, 2, 0, 0, 1])
    assert "50 % have one of their own class as nearest" in findings.of_maps([run], "tercile")
    run.curves = {"b_loss": ([1, 2], [3.0, 1.5]), "val_knn_acc1": ([1, 2], [1.0, 2.0])}
    run.curves |= {f"val_knn_acc1_{g}": ([1, 2], [1.0, 2.0]) for g in ("many", "few")}
    assert curve_names({"a": [run]}) == ["b_loss"]
    assert knn_names({"a": [run]}) == ["val_knn_acc1_few", "val_knn_acc1_many", "val_knn_acc1"]
    told = findings.of_courses({"a": [run]}, ["gone", "b_loss"])
    assert told == "b_loss, first epoch to last: a from 3 to 1.5."
    few: Any = SimpleNamespace(cost={"steps": 10.0}), SimpleNamespace(cost={})
    assert findings.of_cost({"a": [few[0]], "b": [few[1]]}) == "a took 10 steps, a 10."
