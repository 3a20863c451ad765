# SPDX-License-Identifier: MIT
"""How land_pack is cut: keys of the ``data`` block."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from ltplugins.core.ranges import AtLeast, Note, UpTo, Within
from ltplugins.core.schema import Section

Tile = Annotated[int, AtLeast(8)]
Stride = Annotated[int, AtLeast(1)]
Purity = Annotated[float, UpTo(0, 1)]
Least = Annotated[int, AtLeast(1)]
Block = Annotated[int, Within(1, 180), Note("degrees")]
Folds = Annotated[int, AtLeast(3), Note("one to test on, one to probe with, others to train on")]
Fold = Annotated[int, AtLeast(0)]

PIXELS_A_DEGREE = 15  # of both maps
_DENSEST = 8  # windows a side of a tile: closer ones are nearly the same


@dataclass(frozen=True)
class LandConfig(Section):
    """The keys of ``data`` that say how land_pack is cut.

    Attributes:
        tile: pixels a side; a pixel is 7.4 km at the equator.
        stride: pixels from one tile to the next; null = half a tile, so that neighbours overlap.
        purity: share of a tile's pixels that one class must have.
        least: tiles on the whole Earth that a class must have; rarer ones are left out.
        block: degrees a side of the blocks of the spatial split.
        folds: into which the blocks are dealt; every block is tested on in one of them.
        fold: the one to test on; the next one is the probe part.
    """

    tile: Tile = 32
    stride: Stride | None = None
    purity: Purity = 0.5
    least: Least = 100
    block: Block = 12
    folds: Folds = 5
    fold: Fold = 0

    @property
    def step(self) -> int:
        """The stride in pixels."""
        return self.tile // 2 if self.stride is None else self.stride

    def refusals(self) -> Iterator[tuple[str, str]]:
        """Keys that do not fit each other."""
        yield from misfits(vars(self))


def misfits(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys that do not fit each other, each with what is expected; ``values`` has all of them."""
    side = values["block"] * PIXELS_A_DEGREE
    if values["tile"] > side:
        yield "tile", f"at most the side of a block, {side} pixels (data.block {values['block']})"
    densest = -(-values["tile"] // _DENSEST)
    if values["stride"] is not None and values["stride"] < densest:
        yield "stride", f"an eighth of the tile or more ({densest} pixels)"
    if values["fold"] >= values["folds"]:
        yield "fold", f"a number from 0 to {values['folds'] - 1} (data.folds {values['folds']})"
