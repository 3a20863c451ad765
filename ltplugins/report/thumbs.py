# SPDX-License-Identifier: MIT
"""Small pictures of a page: each is in it once, wherever and however often it is shown.

Legend: S side in pixels, N points.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image, features


class Thumbs:
    """The pictures that a page shows, in the order of their first use."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}  # by content: the picture's definition

    def name(self, image: np.ndarray) -> str:
        """The id under which uint8 [S S 3] is in the page."""
        key = f"t{hashlib.sha256(image.tobytes()).hexdigest()[:10]}"
        if key not in self._known:
            side = len(image)
            self._known[key] = (
                f'<image id="{key}" width="{side}" height="{side}" href="{_data(image)}"/>'
            )
        return key

    def show(self, image: np.ndarray, says: str, mark: str = "") -> str:
        """A picture as HTML.

        Args:
            image: uint8 [S S 3].
            says: what it is, for a screen reader.
            mark: a class of the stylesheet: ``off`` frames it.
        """
        side = len(image)
        return (
            f'<svg class="{f"thumb {mark}".strip()}" viewBox="0 0 {side} {side}" role="img" '
            f'aria-label="{escape(says)}"><use href="#{self.name(image)}"/></svg>'
        )

    def definitions(self) -> str:
        """What all uses refer to; nothing where nothing is shown."""
        if not self._known:
            return ""
        inner = "".join(self._known.values())
        return (
            f'<svg class="defs" width="0" height="0" aria-hidden="true"><defs>{inner}</defs></svg>'
        )


def _data(image: np.ndarray) -> str:
    """An address that holds the picture itself."""
    form = "WEBP" if features.check("webp") else "PNG"  # some builds of Pillow cannot write WebP
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, quality=80, method=6)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{form.lower()};base64,{text}"


@dataclass(frozen=True)
class Point:
    """A point of a map that shows a picture where it is touched.

    Attributes:
        image: uint8 [S S 3].
        says: what it is, in a few words.
    """

    image: np.ndarray
    says: str


_SIZE = 56.0  # of a shown picture, in units of a panel: 72 an inch


def points_svg(
    points: Sequence[Point], places: np.ndarray, size: tuple[float, float], thumbs: Thumbs
) -> str:
    """Invisible points that show their pictures under a pointer or a finger, without a script.

    Args:
        points: N.
        places: Float[N 2], in the panel's own units.
        size: of the panel; pictures stay inside.
    """
    parts = []
    for point, (x, y) in zip(points, places.tolist(), strict=True):
        width = max(_SIZE, 5.2 * len(point.says))
        left = min(max(x - width / 2, 0.0), max(size[0] - width, 0.0))
        top = y - _SIZE - 22 if y > _SIZE + 22 else y + 8
        scale = _SIZE / len(point.image)
        parts.append(
            f'<g class="pt" tabindex="-1"><circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
            f'<g class="up" transform="translate({left:.1f} {top:.1f})">'
            f'<rect width="{width:.0f}" height="{_SIZE + 14:.0f}"/>'
            f'<use href="#{thumbs.name(point.image)}" '
            f'transform="translate({(width - _SIZE) / 2:.1f} 0) scale({scale:.3g})"/>'
            f'<text x="{width / 2:.0f}" y="{_SIZE + 10:.0f}">{escape(point.says)}</text></g></g>'
        )
    return f'<g class="pts">{"".join(parts)}</g>'
