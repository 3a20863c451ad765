# SPDX-License-Identifier: MIT
"""Small pictures that stand together with one legend: panels of a page, and one PNG of them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ltplugins.core.files import atomic_path
from ltplugins.report.style import WIDTH, as_svg, folded
from ltplugins.report.thumbs import Point, Thumbs, points_svg


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a mark of that shape (``-``, ``:`` are lines) in that colour."""

    label: str
    colour: str
    shape: str = "o"


@dataclass(frozen=True)
class Panel:
    """One small picture: what it says above, and what draws it. Sizes are in inches.

    Attributes:
        points, at: that show a picture where they are touched, and Float[N 2], where they lie.
    """

    title: str
    draw: Callable[[Axes], None]
    width: float = 3.4
    height: float = 2.6
    points: Sequence[Point] = ()
    at: Any = None


@dataclass(frozen=True)
class Plate:
    """Small pictures that stand side by side where there is room, with one legend for all."""

    panels: Sequence[Panel]
    keys: Sequence[Key] = ()


def render(plate: Plate, path: Path, thumbs: Thumbs) -> list[str]:
    """Write the plate as one PNG to ``path`` and return each panel as SVG for a page.

    Args:
        thumbs: takes up the pictures of the panels' points.
    """
    svgs = draw_svgs(plate, path.stem, thumbs)
    with atomic_path(path) as tmp:
        join(plate).savefig(tmp, dpi=110, metadata={"Software": None})
    return svgs


def draw_svgs(plate: Plate, name: str, thumbs: Thumbs | None = None) -> list[str]:
    """Return each panel as SVG; ``name`` sets its ids apart from other plates'."""
    svgs = []
    for k, panel in enumerate(plate.panels):
        figure = Figure(figsize=(panel.width, panel.height), layout="constrained")
        axis = figure.subplots()
        panel.draw(axis)
        svg = as_svg(figure, f"{name}-{k}")
        if panel.points and thumbs is not None:
            size = (72 * panel.width, 72 * panel.height)  # the units of the SVG are points
            places = axis.transData.transform(panel.at) * 72 / figure.dpi
            places[:, 1] = size[1] - places[:, 1]
            svg = svg.removesuffix("</svg>") + points_svg(panel.points, places, size, thumbs)
            svg += "</svg>"
        svgs.append(svg)
    return svgs


def join(plate: Plate) -> Figure:
    """All panels and the legend in one figure, as many side by side as a page is wide."""
    first = plate.panels[0]
    columns = max(1, min(len(plate.panels), round(WIDTH / first.width)))
    figure, axes = panels(len(plate.panels), columns, max(p.height for p in plate.panels))
    for axis, panel in zip(axes, plate.panels, strict=True):
        panel.draw(axis)
        axis.set_title(folded(panel.title, round(9 * WIDTH / columns)))  # 9 letters an inch
    if plate.keys:
        handles = [_handle(key) for key in plate.keys]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(6, len(handles)))
    return figure


def _handle(key: Key) -> Line2D:
    if key.shape in ("-", ":"):
        style: Any = key.shape
        return Line2D([], [], color=key.colour, label=key.label, linestyle=style)
    look: dict[str, Any] = {"marker": key.shape, "linestyle": "", "markersize": 6}
    return Line2D([], [], color=key.colour, label=key.label, **look)


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
