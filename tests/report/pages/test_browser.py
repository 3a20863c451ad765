# SPDX-License-Identifier: MIT
"""The page of a comparison as a browser shows it, on a telephone and on a desk."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltplugins.eval.scores import mean_std
from ltplugins.report import style
from ltplugins.report.evaluated import RunResult, value
from ltplugins.report.pages.html import CSS
from ltplugins.report.pages.tables import ORDER
from ltplugins.report.pages.write import write_report
from tests.kit.browser import CHROMIUM, look
from tests.kit.study import METHODS, study

PROTOCOL = "knn_k20_T0.07"
RUNS = study(METHODS[:8], 2, [PROTOCOL])
assert RUNS[0].gallery is not None
# A map of the gallery's own images.
RUNS[0].embedding_targets, RUNS[0].embedding_places = (
    RUNS[0].gallery.targets,
    RUNS[0].gallery.places,
)
RUNS[0].embedding = np.random.default_rng(0).normal(size=(len(RUNS[0].embedding_targets), 2))
browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium fonts-dejavu-core"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    write_report(RUNS, out, title="Eight methods", baseline="simclr")
    return out


@pytest.fixture(scope="module")
def phone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return look((folder / "report.html").read_text(), tmp_path_factory.mktemp("phone"), 390)


def rows_of(runs: list[RunResult]) -> dict[str, list[RunResult]]:
    rows: dict[str, list[RunResult]] = {}
    for run in runs:
        rows.setdefault(run.row_name, []).append(run)
    return rows


def expected() -> Iterator[list[str]]:
    """Each row's name and means in %, straight from the results."""
    for name, runs in rows_of(RUNS).items():
        values = [[value(run, PROTOCOL, m, "tercile").mean for run in runs] for m in ORDER]
        yield [name, *(f"{100 * (mean_std(v).mean or 0.0):.1f}" for v in values)]


@browser
def test_nothing_is_wider_than_a_telephone(phone: dict[str, Any]) -> None:
    assert phone["inner"] == 390
    assert phone["width"] <= 390 and phone["wide"] == []


@browser
def test_the_page_asks_for_nothing_and_complains_of_nothing(phone: dict[str, Any]) -> None:
    assert phone["requests"] == [] and phone["console"] == []


@browser
def test_numbers_on_the_page_are_those_of_the_results(phone: dict[str, Any]) -> None:
    assert phone["tables"] == [list(expected())]


@browser
def test_tables_are_sorted_without_a_script(folder: Path, phone: dict[str, Any]) -> None:
    assert "<script" not in (folder / "report.html").read_text()
    for name, sign in (("few", -1), ("group_std", 1)):
        column = [float(row[1 + ORDER.index(name)]) for row in phone["sorted"][name]]
        assert column == sorted(column, key=lambda v: sign * v)
        assert len(column) == 8
    # The names of rows stay while numbers are scrolled, and are wide enough to be read.
    assert phone["head"]["position"] == "sticky" and phone["head"]["left"] == "0px"
    assert 90 < phone["head"]["width"] < 150


@browser
def test_a_point_of_a_map_shows_its_picture_to_a_finger(phone: dict[str, Any]) -> None:
    found = phone["point"]
    assert (found["before"], found["after"]) == ("hidden", "visible")
    assert found["inside"] and found["width"] > 30


def test_the_twins_hold_the_same_numbers(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    lines = list(csv.DictReader(io.StringIO((folder / "numbers.csv").read_text())))
    for name, *cells in expected():
        [line] = [one for one in text.splitlines() if one.startswith(f"| {name} (n = 2) |")]
        shown = [cell.strip().strip("*").partition(" ")[0] for cell in line.split("|")[2:-1]]
        assert shown == cells
        for metric, cell in zip(ORDER, cells, strict=True):
            found = [
                float(one["mean"]) for one in lines if (one["row"], one["metric"]) == (name, metric)
            ]
            assert len(found) == 2 and f"{100 * sum(found) / 2:.1f}" == cell


def test_tables_have_heads_and_captions_and_pictures_say_what_they_show(folder: Path) -> None:
    html = (folder / "report.html").read_text()
    assert html.count("<caption>") == html.count('<table class="results')
    assert not re.search(r"<th(?![^>]*scope=)[ >]", html), "a th without scope"
    labels = re.findall(r'<svg role="img" aria-label="([^"]*)"', html)
    assert labels and html.count("<svg role=") == len(labels)
    assert any(re.search(r"few: (Against|No row)", label) for label in labels)
    assert all(label.strip() for label in labels)
    inside = set(re.findall(r'<a href="#([^"]+)"', html))
    assert inside and inside <= set(re.findall(r'<h2 id="([^"]+)"', html))


def test_each_picture_is_in_the_page_once_and_all_that_is_shown_is_there(folder: Path) -> None:
    html = (folder / "report.html").read_text()
    shown, there = re.findall(r'<use href="#(\w+)"', html), re.findall(r'<image id="(t\w+)"', html)
    assert len(there) == len(set(there)) > 5
    assert set(shown) == set(there)
    named = re.findall('<svg class="thumb[^>]* role="img" aria-label="[^"]+"', html)
    assert len(named) == html.count('<svg class="thumb')
    assert html.count('<g class="pt"') == 40  # of the one map
    assert len(named) + 40 == len(shown)


def test_the_images_say_what_the_galleries_hold(folder: Path) -> None:
    """Counted again, image by image."""
    html, text = ((folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    runs = {run.row_name: run for run in RUNS if run.pair_key == RUNS[0].pair_key}
    galleries = {row: run.gallery for row, run in runs.items() if run.gallery is not None}
    assert len(galleries) == 8
    base = galleries["simclr"]
    alone = dict.fromkeys(galleries, 0)
    for k, true in enumerate(base.targets):
        right = [row for row, found in galleries.items() if found.preds[k] == true]
        for row in right[: len(right) == 1]:
            alone[row] += 1
    for row, count in alone.items():
        found = re.search(rf"^\| {row} alone \| (\d+) \|", text, re.MULTILINE)
        assert (int(found[1]) if found else 0) == count
    best = next(row for row in galleries if f"| simclr, not {row} |" in text)
    for one, other in (("simclr", best), (best, "simclr")):
        a, b = (galleries[row].preds == base.targets for row in (one, other))
        assert f"| {one}, not {other} | {(a & ~b).sum()} |" in text
    wrong = sum(
        int(c != base.targets[query])
        for row in ("simclr", best)
        for query, near in zip(base.queries, galleries[row].near_targets, strict=True)
        for c in near
    )
    assert html.count('<svg class="thumb off"') == wrong > 0
    assert "| colt_simclr | 12, 7, 0 |" in text


def test_a_strip_of_classes_has_the_numbers_of_one_pair(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    best = re.search(r"\| class \| group \| training images \| simclr \(%\) \| (\S+) \(%\)", text)
    assert best is not None
    ours, theirs = (
        next(run for run in RUNS if run.row_name == row).results.protocols[PROTOCOL].per_class
        for row in ("simclr", best[1])
    )
    for c, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one is not None and other is not None
        difference = f"{100 * (other - one):+.1f}".replace("-", "\N{MINUS SIGN}")
        cells = (
            f"{RUNS[0].class_counts[c]:,} | {100 * one:.1f} | {100 * other:.1f} | {difference} |"
        )
        assert cells in text, cells


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


MODES = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.split(r"@media", CSS)[:2]]


@pytest.mark.parametrize("mode", MODES, ids=["light", "dark"])
def test_contrast(mode: dict[str, str]) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for text in ("ink", "muted", "accent"):
        assert contrast(mode[text], mode["paper"]) >= 4.5, text
    assert contrast(mode["ink"], mode["shade"]) >= 4.5
    marks = {*style.SERIES, *style.SHOTS.values(), *style.CLASSES, style.ACCENT, style.PLAIN}
    weak = {c: round(contrast(c, mode["paper"]), 2) for c in marks}
    assert {c: v for c, v in weak.items() if v < 3} == {}


def test_no_two_rows_share_a_colour_that_tells_them_apart() -> None:
    names = [str(k) for k in range(6)]
    assert len(set(style.line_colours(names).values())) == 6
    many = style.line_colours([*names, "6"], marked=("2", "5"))
    special = {name for name, colour in many.items() if colour != style.PLAIN}
    assert special == {"2", "5"} and many["2"] != many["5"]
