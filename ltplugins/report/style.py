# SPDX-License-Identifier: MIT
"""How the report's pictures look, and how one figure becomes a themed SVG and a PNG.

A figure is drawn once, in the light theme. In the SVG the theme's colours are then replaced by CSS
variables, so that text and rules follow the page into dark mode. Text stays text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltplugins.core.files import atomic_path

# Each of these appears in figures as itself and in pages as var(--name).
THEME = {"ink": "#1f2933", "muted": "#5f6b7a", "rule": "#d5dbe3", "paper": "#fdfdfc"}
# Each at least 3:1 on the page, light and dark, and neighbours apart in hue. After Okabe and Ito
# 2008, whose yellow and sky blue are too faint on white. More rows than colours are never told
# apart by colour: see ``line_colours``.
SERIES = ("#0072b2", "#d55e00", "#00926b", "#b0589a", "#a07c00", "#7d6bc4")
MARKERS = ("o", "s", "^", "D", "v", "P")
ACCENT, PLAIN = SERIES[1], "#808b97"
SHOTS = {"many": "#77838f", "medium": "#4f81bd", "few": "#d55e00"}
SHAPES = {"many": "s", "medium": "D", "few": "^", "overall": "o"}
# Classes are labelled in the picture as well.
CLASSES = (*SERIES, "#8a8a2b", "#aa4499", "#2f9484", "#8f6b4a", "#7f7f7f", "#4f8fc9")
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


def line_colours(names: Sequence[str], marked: Sequence[str] = ()) -> dict[str, str]:
    """A colour of its own for each row, or, of more rows than there are, of ``marked`` alone.

    The others are then all of one grey, and their names stand at their lines.
    """
    if len(names) <= len(SERIES):
        return dict(zip(names, SERIES, strict=False))
    special = dict(zip([n for n in marked if n in names], SERIES, strict=False))
    return {name: special.get(name, PLAIN) for name in names}


def name_lines(
    axis: Axes, ends: Mapping[str, tuple[float, float]], colours: Mapping[str, str]
) -> None:
    """Write each line's name right of its end, pushed apart where names would overlap.

    Args:
        ends: name -> the line's last point, in data.
        colours: of the names.
    """
    figure = axis.get_figure()
    assert figure is not None
    points = axis.bbox.height / figure.dpi * 72
    low, high = axis.get_ylim()
    order = sorted(ends, key=lambda name: ends[name][1])
    size = min(8.0, max(5.0, 0.8 * points / max(len(order), 1)))
    texts = {name: folded(name, 18) for name in order}
    lines = 2 if any("\n" in text for text in texts.values()) else 1
    step = size * 1.18 * lines / points  # a label as a share of the axis
    wanted = [(ends[name][1] - low) / ((high - low) or 1.0) for name in order]
    for name, place in zip(order, spread(wanted, step), strict=True):
        x, y = ends[name]
        line: dict[str, Any] = {"arrowstyle": "-", "color": colours[name], "linewidth": 0.8}
        line |= {"shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}  # to the name's left end
        style: dict[str, Any] = {"fontsize": size, "va": "center", "annotation_clip": False}
        axis.annotate(
            texts[name],
            (x, y),
            xytext=(1.04, place),
            textcoords="axes fraction",
            color=THEME["ink"],
            arrowprops=line,
            **style,
        )


def folded(name: str, width: int = 24) -> str:
    """A row's name in at most two lines."""
    lines = wrap(name, width) or [name]  # a longer word is broken: it would leave no picture
    return "\n".join(lines[:2]) + ("…" if len(lines) > 2 else "")


def line_height(names: Sequence[str]) -> float:
    """Inches that a row of a picture needs for its name."""
    return 0.36 if any("\n" in folded(name) for name in names) else 0.235


def spread(wanted: Sequence[float], step: float) -> list[float]:
    """Places at least ``step`` apart and in order, as near as may be to the sorted ``wanted``.

    Neighbours that are too near form a block, which stands at the mean of what its members want.
    Where all fit between 0 and 1 they stay there.

    >>> spread([0.1, 0.5, 0.5], 0.2)
    [0.1, 0.4, 0.6]
    """
    blocks: list[list[float]] = []  # of each: the sum of wanted starts, how many
    for k, place in enumerate(wanted):
        blocks.append([place - step * k, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            last = blocks.pop()
            blocks[-1] = [blocks[-1][0] + last[0], blocks[-1][1] + last[1]]
    starts = [total / size for total, size in blocks for _ in range(int(size))]
    top = max(0.0, 1 - step * (len(wanted) - 1))
    return [round(min(max(s, 0.0), top) + step * k, 9) for k, s in enumerate(starts)]


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
