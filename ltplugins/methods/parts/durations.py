# SPDX-License-Identifier: MIT
"""Values that runs and sets of any size can share: a number, or a share of the whole."""

from ltplugins.core.errors import UserError


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


def to_images(value: int | str, num_samples: int, name: str) -> int:
    """Return a number of images, given as one (``10000``) or as a share of N (``"50%"``).

    Args:
        num_samples: N.
        name: the key, for messages.

    Raises:
        UserError: negative, or neither a number nor a share.
    """
    text = str(value)
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else None
        images = int(text) if share is None else round(share * num_samples)
    except ValueError:
        images = -1
    if images < 0:
        raise UserError(
            f"{name}: expected a number of images, or a share of the training images such as "
            f"'50%', got {value!r}."
        )
    return images
