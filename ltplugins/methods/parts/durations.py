# SPDX-License-Identifier: MIT
"""Values that runs and sets of any size can share: a number, or a share of the whole."""

from dataclasses import dataclass
from typing import Annotated, Any

from ltplugins.core.ranges import Above, AtLeast, Range


@dataclass(frozen=True)
class _OrShare:
    """Numbers of a range, or a share as text ("50%"), which obeys the same lower end.

    ``unit`` is what the numbers count, ``whole`` what the share is of.
    """

    numbers: Range
    unit: str
    whole: str
    most: float | None = None  # the largest share, in percent

    def holds(self, value: Any) -> bool:
        """Whether it is such a number or such a share."""
        if not isinstance(value, str):
            return self.numbers.holds(value)
        share = _percent(value)
        if share is None or (self.most is not None and share > self.most):
            return False
        return self.numbers.holds(share)

    def expected(self, what: str) -> str:
        """Such as "a number of epochs of 0 or more, or a share of the run such as '50%'"."""
        limit = "" if self.most is None else f" and at most '{self.most:g}%'"
        return (
            f"a number of {self.unit} {self.numbers.ends()}, or a share of {self.whole} such as "
            f"'50%'{limit}"
        )


# Text comes first: "10" is a share that lacks its sign, and no number.
# Epochs (500), or a share of the run ("50%"); ``LongDuration`` is not 0.
Duration = Annotated[str | int | float, _OrShare(AtLeast(0), "epochs", "the run", 100)]
LongDuration = Annotated[str | int | float, _OrShare(Above(0), "epochs", "the run", 100)]
# Images (10000), or a share of the N training images ("50%").
Images = Annotated[str | int, _OrShare(AtLeast(0), "images", "the training images")]


def to_epochs(value: int | float | str, max_epochs: int) -> float:
    """Return a ``Duration`` in epochs of a run of ``max_epochs``."""
    if isinstance(value, str):
        return _share(value) * max_epochs
    return float(value)


def to_images(value: int | str, num_samples: int) -> int:
    """Return ``Images`` as a number, of N = ``num_samples``."""
    if isinstance(value, str):
        return round(_share(value) * num_samples)
    return value


def _share(text: str) -> float:
    percent = _percent(text)
    assert percent is not None, "the config's check comes first"
    return percent / 100


def _percent(text: str) -> float | None:
    """The number before the sign; None where the text is no share."""
    try:
        return float(text.removesuffix("%")) if text.endswith("%") else None
    except ValueError:
        return None
