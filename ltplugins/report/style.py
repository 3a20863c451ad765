# SPDX-License-Identifier: MIT
"""How the report's pictures look, and how one figure becomes a themed SVG and a PNG.

A figure is drawn once, in the light theme. In the SVG the theme's colours are then replaced by CSS
variables, so that text and rules follow the page into dark mode. Text stays text.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltplugins.core.files import atomic_path

# Each of these appears in figures as itself and in pages as var(--name).
THEME = {"ink": "#1f2933", "muted": "#5f6b7a", "rule": "#d5dbe3", "paper": "#fdfdfc"}
# Okabe and Ito 2008, without black and yellow; the order keeps neighbours apart in lightness.
SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c3e", "#7a5195")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SHOTS = {"many": "#9aa5b1", "medium": "#4f81bd", "few": "#d55e00"}
# Okabe-Ito first, then Tol's "muted" and two more: classes are labelled in the picture as well.
CLASSES = (*SERIES[:6], "#999933", "#aa4499", "#44aa99", "#8f6b4a", "#7f7f7f", "#b8860b")
WIDTH = 10.4  # inches; 1 inch is 100 pixels of the page

_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": THEME["ink"],
    "text.parse_math": False,
    "axes.edgecolor": THEME["rule"],
    "axes.labelcolor": THEME["muted"],
    "axes.titlecolor": THEME["ink"],
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": THEME["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": THEME["muted"],
    "ytick.color": THEME["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "figure.facecolor": THEME["paper"],
    "axes.facecolor": "none",
    "savefig.facecolor": THEME["paper"],
    "svg.fonttype": "none",
    "path.simplify": True,
}


@contextmanager
def theme(name: str) -> Iterator[None]:
    """Draw and save inside this; ``name`` makes the ids in the SVG the same in every run."""
    settings: Any = _RC | {"svg.hashsalt": name}
    with matplotlib.rc_context(settings):
        yield


def series(index: int) -> str:
    """Colour of the row at ``index``; rows beyond the palette differ by marker only."""
    return SERIES[index % len(SERIES)]


def marker(index: int) -> str:
    """Marker of the row at ``index``: the palette's second, colour-free distinction."""
    return MARKERS[(index + index // len(SERIES)) % len(MARKERS)]


def panels(count: int, columns: int, height: float, **kwargs: Any) -> tuple[Figure, list[Axes]]:
    """Return a page-wide figure with ``count`` axes in rows of ``columns``, ``height`` inches each.

    The last row keeps its empty places, so that panels have one size throughout.
    """
    columns = max(1, min(columns, count))
    lines = -(-count // columns)
    figure = Figure(figsize=(WIDTH, height * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False, **kwargs).flat)
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count]


def shared_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels, above them, each row once and in the order of its colours."""
    unique: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            unique.setdefault(label, handle)
    columns = min(6, len(unique))
    figure.legend(list(unique.values()), list(unique), loc="outside upper left", ncols=columns)


def save(figure: Figure, path: Path) -> str:
    """Write the figure as PNG to ``path`` and return it as SVG for a page."""
    with atomic_path(path) as tmp:
        figure.savefig(tmp, dpi=144, metadata={"Software": None})
    return as_svg(figure, path.stem)


def as_svg(figure: Figure, prefix: str) -> str:
    """Return the figure as SVG for a page; ``prefix`` sets its ids apart from other figures'."""
    buffer = StringIO()
    # dpi only matters to rasterised scatter points.
    figure.savefig(buffer, format="svg", dpi=200, transparent=True, metadata={"Date": None})
    return themed_svg(buffer.getvalue(), prefix)


def themed_svg(svg: str, prefix: str) -> str:
    """Make matplotlib's SVG fit for inlining: no outside addresses, own ids, the page's colours."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # it would style the page
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    for size in ("width", "height"):  # the page decides; the view box keeps the proportions
        svg = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r"(font: [^'\"]*)'[^;\"]*", r"\1var(--font)", svg)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", svg)
    for name, colour in THEME.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg
