# SPDX-License-Identifier: MIT
"""Durations that a run of 20 epochs and one of 1000 can share: epochs, or a share of the run."""

from ltplugins.errors import UserError


def to_epochs(value: int | float | str, max_epochs: int, name: str) -> float:
    """Return a duration in epochs.

    Args:
        value: a number of epochs (``500``), or a share of the run as text (``"50%"``).
        max_epochs: length of the run.
        name: the key, for messages.

    Raises:
        UserError: negative, not a number, a share above 100%.
    """
    if isinstance(value, str):
        try:
            share = float(value.removesuffix("%"))
        except ValueError:
            share = -1.0
        if not value.endswith("%") or not 0 <= share <= 100:
            raise UserError(
                f"{name}: expected a number of epochs or a share of the run such as '50%', "
                f"got {value!r}."
            )
        return share / 100 * max_epochs
    if isinstance(value, bool) or value < 0:
        raise UserError(f"{name}: expected epochs >= 0 or a share such as '50%', got {value!r}.")
    return float(value)
