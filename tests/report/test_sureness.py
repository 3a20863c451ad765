# SPDX-License-Identifier: MIT
"""Reliability and confusion: what is drawn is what the results say."""

import re
from dataclasses import replace

import numpy as np
import pytest

from ltplugins.eval.results import Calibration, Reliability
from ltplugins.report import plates, style
from ltplugins.report.evaluated import RunResult
from ltplugins.report.findings import of_groups
from ltplugins.report.sureness import (
    confused_rows,
    confusion_panels,
    reliability_panels,
    sure_rows,
)
from ltplugins.report.words import sureness_caption
from tests.report.test_table import results

BINS = [[10.0, 0.2, 0.1], [0.0, 0.0, 0.0], [90.0, 0.9, 0.7], [0.5, 0.99, 0.0]]


def sure(name="a", protocols=("classifier",)):
    """A run that knows how sure it is; no image is of few."""
    tables = {"overall": BINS, "many": BINS, "medium": BINS, "few": [[0.0, 0.0, 0.0]]}
    errors = {"overall": 0.19, "many": 0.19, "medium": 0.19, "few": None}
    found = {"tercile": Reliability(errors, tables)}
    scores = results(few=None)
    (entry,) = scores.protocols.values()
    entry = replace(
        entry,
        calibration=Calibration(1.5, 40, found, found),
        confusion={"tercile": [[8, 2, 0], [5, 5, 0], [0, 0, 0]]},
    )
    return RunResult(name, replace(scores, protocols=dict.fromkeys(protocols, entry)))


def test_rows_without_it_are_left_out():
    plain = RunResult("b", results(few=0.2))
    assert list(sure_rows({"a": [sure()], "b": [plain]})) == ["a"]
    assert reliability_panels({"b": [plain]}, "tercile") is None
    assert confusion_panels({"b": [plain]}, "tercile", "knn") is None
    two = sure(protocols=("classifier", "linear_lt"))
    assert list(sure_rows({"a": [two]})) == ["a, classifier", "a, linear_lt"]


def test_where_the_tail_goes_is_told_of_features_too():
    """Whose protocols know no calibration: of the one that the page begins with."""
    table = [[8, 2, 0], [5, 5, 0], [3, 1, 4]]
    scores = results(few=0.5)
    ((name, entry),) = scores.protocols.items()
    known = replace(scores, protocols={name: replace(entry, confusion={"tercile": table})})
    rows = {"a": [RunResult("a", known)], "b": [RunResult("b", scores)]}
    assert list(confused_rows(rows, "tercile", name)) == ["a"]
    assert not confused_rows(rows, "threshold", name) and not confused_rows(rows, "tercile", "x")
    assert "a: of the images of few, 38 % are taken for many" in of_groups(rows, "tercile", name)
    # A classifier's comes before it.
    assert list(confused_rows({**rows, "c": [sure("c")]}, "tercile", name)) == ["c"]


def test_the_dots_are_the_bins_of_many_images():
    with style.theme("test"):
        figure = plates.join(reliability_panels({"a": [sure()]}, "tercile"))
    (axis,) = figure.axes
    dots = axis.collections
    assert len(dots) == 2  # nothing of few
    np.testing.assert_allclose(dots[0].get_offsets(), [[20, 10], [90, 70]])
    sizes = dots[0].get_sizes()
    assert sizes[1] > 5 * sizes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "many, 19.0",
        "medium, 19.0",
    ]
    assert "error 19.0; 19.0 at temperature 1.50" in axis.get_xlabel()


def test_the_numbers_are_shares_of_a_line(tmp_path):
    with style.theme("test"):
        figure = plates.join(confusion_panels({"a": [sure()]}, "tercile", "knn"))
        svg = style.save(figure, tmp_path / "confusion.png")
    (axis,) = figure.axes
    shown = [text.get_text() for text in axis.texts]
    assert shown == ["80", "20", "0", "50", "50", "0", "n/a", "n/a", "n/a"]
    assert [p.get_facecolor()[3] for p in axis.patches][:4] == pytest.approx([0.48, 0.12, 0, 0.3])
    assert "<image" not in svg and re.search(r"var\(--ink\)", svg)


def test_the_caption_says_how_many_are_left_out():
    rows = {str(i): [sure(str(i))] for i in range(8)}
    assert "2 more are not shown." in sureness_caption(rows)
    assert "more are" not in sureness_caption({"a": [sure()]})
    assert len(confusion_panels(rows, "tercile", "knn").panels) == 6
