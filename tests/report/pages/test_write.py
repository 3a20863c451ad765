# SPDX-License-Identifier: MIT
"""The report stands alone, names everything, and hides nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.eval.banks import Features
from ltplugins.eval.gallery import pick_points
from ltplugins.eval.options import EvalConfig, KnnConfig, LinearConfig
from ltplugins.eval.protocol import evaluate_features
from ltplugins.eval.results import Scores
from ltplugins.report import plates, style
from ltplugins.report.classes import by_count_panels, ranked_accuracy
from ltplugins.report.curves import thin_out
from ltplugins.report.embed import embed_2d
from ltplugins.report.evaluated import RunResult
from ltplugins.report.pages.write import write_report
from ltplugins.report.scatter import spread_labels
from ltplugins.report.style import themed_svg

PICTURES = {
    "forest-0.png",
    "forest-1.png",
    "groups.png",
    "rank.png",
    "confusion.png",
    "counts.png",
    "curves.png",
    "scatter.png",
}


def evaluated(counts: list[int], rule: str, seed: int) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(len(counts)).repeat_interleave(8)
    centers = torch.randn(len(counts), 8, generator=torch.Generator().manual_seed(0))
    sets = [
        Features(centers[targets] + torch.randn(len(targets), 8, generator=generator), targets)
        for _ in range(2)
    ]
    cfg = EvalConfig(KnnConfig(k=3), LinearConfig([4], grid=[0.1]), groups=[rule], seeds=[0, 1])
    return evaluate_features(None, sets[0], sets[1], counts, cfg)


def make_runs(
    counts: list[int], rule: str = "tercile", class_names: list[str] | None = None
) -> list[RunResult]:
    runs = []
    for seed, name in enumerate(("simclr", "gh_simclr <w=1> & $x$")):
        targets = torch.arange(len(counts)).repeat(5)
        generator = torch.Generator().manual_seed(seed)
        runs.append(
            RunResult(
                name,
                evaluated(counts, rule, seed),
                pair_key="p",
                curves={"train_nce_loss": (range(300), np.linspace(5, 4, 300))},
                embedding=torch.randn(len(targets), 2, generator=generator),
                embedding_targets=targets,
                embedding_method="PCA",
                class_names=class_names,
                config=f"method: {name}",
                info={"split hash": "sha256:abc", "host": "builtin", "run seed": str(seed)},
            )
        )
    return runs


class Addresses(HTMLParser):
    """Collects what a browser would load, and every id."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action"):
                self.found.append(value or "")
            if name == "id":
                self.ids.append(value or "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    names = [f"thing {i}" for i in range(6)]
    write_report(make_runs([60, 50, 40, 30, 20, 9], "threshold", names), out, title="A <b> & C")
    return out


def test_html_needs_nothing_from_outside(folder: Path) -> None:
    html = (folder / "report.html").read_text()
    assert "http" not in html and "@import" not in html and "//" not in _without_images(html)
    parser = Addresses()
    parser.feed(html)
    assert parser.found, "the scatter points are an inline image"
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in parser.found)
    inside = {a[1:] for a in parser.found if a.startswith("#")}
    inside |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert inside <= set(parser.ids)
    assert len(parser.ids) == len(set(parser.ids))
    assert parser.tags.isdisjoint({"script", "link", "iframe", "img"})


def _without_images(html: str) -> str:
    return re.sub(r'"data:[^"]*"', "", html)


def test_html_names_everything_and_escapes(folder: Path) -> None:
    html = (folder / "report.html").read_text()
    for text in (
        "<title>A &lt;b&gt; &amp; C</title>",
        "gh_simclr &lt;w=1&gt; &amp; $x$",
        "knn_k3_T0.07",
        "linear_4shot",
        "sha256:abc",
        "0 (simclr); 1 (gh_simclr",
        "thing 5 (9)",
        '<a href="#answer">Who leads</a>',
        "One pair of runs tells no method from another.",
        "the balanced probe set (48 images)",
        "threshold: many: more than 100",
        "prefers-color-scheme: dark",
    ):
        assert text in html, text
    assert "<w=1>" not in html
    # Panels: of a forest 3, for many is n/a; of the groups and the scatter 2; of the others 1.
    assert html.count("<svg role") == 2 * 3 + 2 + 2 + 2 + 3


def test_empty_group_is_shown_as_na(folder: Path) -> None:
    html, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    reason = "many is n/a under the threshold rule: no class has more than 100 training images"
    assert "<td><b>n/a</b></td>" in html and reason in html
    assert "| n/a |" in text and reason in text


def test_markdown_and_pictures(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert {p.name for p in (folder / "figures").iterdir()} == PICTURES
    assert set(re.findall(r"\(figures/([^)]+)\)", text)) == PICTURES
    assert "| run | few | medium | many | overall | balanced | group std |" in text
    rows = [line for line in text.splitlines() if line.startswith("| simclr |")]
    assert len(rows) == 2 * 2  # one per protocol, and as many of the further numbers
    assert "\nlinear_4shot,threshold,simclr,simclr,ece," in (folder / "numbers.csv").read_text()
    assert "<details><summary>Harmonic mean, worst class" in (folder / "report.html").read_text()
    assert all((folder / "figures" / name).read_bytes()[:4] == b"\x89PNG" for name in PICTURES)


def test_figures_follow_the_page_theme(folder: Path) -> None:
    html = (folder / "report.html").read_text()
    svg = html[html.index("<svg role") :]
    assert "var(--ink)" in svg and "var(--muted)" in svg
    assert "#1f2933" not in svg and "DejaVu" not in svg and "<style" not in svg


def test_same_runs_give_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    names = [f"thing {i}" for i in range(6)]
    runs = make_runs([60, 50, 40, 30, 20, 9], "threshold", names)
    settings = dict(matplotlib.rcParams)
    path = write_report(runs, tmp_path, title="A <b> & C")
    assert path.read_bytes() == (folder / "report.html").read_bytes()
    assert dict(matplotlib.rcParams) == settings


def test_many_classes_and_nothing_but_numbers(tmp_path: Path) -> None:
    run = make_runs(list(range(25, 0, -1)))[0]
    bare = RunResult("bare", run.results)
    write_report([bare], tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "moving average" in html
    assert 'id="curves"' not in html and "Test features" not in html
    kept = PICTURES - {"forest-0.png", "forest-1.png", "curves.png", "scatter.png"}
    assert {p.name for p in (tmp_path / "figures").iterdir()} == kept


def test_many_classes_are_coloured_by_group(tmp_path: Path) -> None:
    write_report(make_runs(list(range(25, 0, -1))), tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "medium-shot class" in html and "bold names" not in html


def test_rank_order_of_the_per_class_curve() -> None:
    run = RunResult("a", evaluated([5, 50, 500], "tercile", 0))
    entry = next(iter(run.results.protocols.values()))
    run.results.protocols["p"] = replace(entry, per_class=[0.1, None, 0.3])
    np.testing.assert_array_equal(ranked_accuracy(run, "p"), [0.3, np.nan, 0.1])
    assert np.isnan(ranked_accuracy(run, "other")).all()


def test_every_panel_shows_its_whole_line() -> None:
    """The panels share their limits, and the last may reach lower than the first."""
    runs = make_runs([60, 50, 40, 30, 20, 9])
    for run, values in zip(runs, ([0.9, 0.8, 0.7, 0.5, 0.3, 0.0], [1.0] * 6), strict=True):
        run.results.protocols["p"] = replace(
            run.results.protocols["knn_k3_T0.07"], per_class=values
        )
    rows = {"base": [runs[1]], "low": [runs[0]], "high": [runs[1]]}
    with style.theme("test"):
        plate = by_count_panels(rows, "p", "base")
        assert plate is not None
        axes = plates.join(plate).axes
    assert len(axes) == 2
    for axis in axes:
        assert axis.get_ylim() == (0, 100)
        assert all(0 <= y <= 100 for line in axis.lines for y in line.get_ydata())


def test_thin_out_keeps_level_and_length() -> None:
    steps, values = thin_out(range(1000), [1.0, 3.0] * 500, points=50)
    assert len(steps) == 50 and np.allclose(values, 2.0)
    assert steps[0] == 9.5 and np.all(np.diff(steps) == 20)
    assert np.array_equal(thin_out([1, 2], [5, 6])[1], [5, 6])


def test_labels_are_pushed_apart() -> None:
    places = np.array([[0.5, 0.5], [0.52, 0.5], [0.5, 0.52], [0.9, 0.5]])
    moved = spread_labels(places, [0.2] * 4, height=0.05)
    gaps = np.abs(moved[:3, None, 1] - moved[None, :3, 1])[np.triu_indices(3, 1)]
    assert gaps.min() >= 0.05 - 1e-5
    assert np.array_equal(moved[3], places[3])


def test_svg_loses_size_namespace_and_unused_ids() -> None:
    svg = themed_svg('<?xml?><svg width="1pt" height="2pt" xmlns="x"><g id="a"/></svg>', "p")
    assert svg == "<svg><g/></svg>"


def test_pick_points_is_even_and_seeded() -> None:
    targets = torch.tensor([0] * 100 + [1] * 100 + [2] * 5)
    chosen = pick_points(targets, 65, seed=0)
    assert torch.bincount(targets[chosen]).tolist() == [30, 30, 5]
    assert torch.equal(chosen, pick_points(targets, 65, seed=0))
    assert not torch.equal(chosen, pick_points(targets, 65, seed=1))
    assert pick_points(targets, 2000).tolist() == list(range(205))
    assert set(pick_points(targets, 40).tolist()) < set(chosen.tolist())


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_embedding_separates_two_blobs(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(40, 16, generator=generator) * 0.1
    feats[:20, 0] += 1
    feats[20:, 1] += 1
    plane = embed_2d(feats, seed=0, method=method)  # type: ignore[arg-type]
    assert plane.shape == (40, 2) and plane.dtype == torch.float32
    assert torch.equal(plane, embed_2d(feats, seed=0, method=method))  # type: ignore[arg-type]
    left, right = plane[:20], plane[20:]
    gap = (left.mean(0) - right.mean(0)).norm()
    assert gap > 2 * (left.std(0).norm() + right.std(0).norm()) / 2


def test_embedding_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="Did you mean 'tsne'"):
        embed_2d(torch.ones(5, 3), method="t-sne")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="3 to 2,000 points, got 2,001"):
        embed_2d(torch.ones(2001, 3), method="tsne")
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[umap\]"'):
        embed_2d(torch.ones(5, 3), method="umap")
