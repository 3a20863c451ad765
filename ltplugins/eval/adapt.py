# SPDX-License-Identifier: MIT
"""What a protocol falls back to where nobody has said a number and the data are too few for it.

An evaluation of one's own images does not end because a class of them is small. A number that was
asked for is never changed: it is refused where it does not fit.
"""

from collections.abc import Sequence

from ltplugins.eval.options import NEIGHBOURS, SHOTS, KnnConfig, LinearConfig

_LEAST = 2  # images of a class: one to fit and one to choose C on


def settle_neighbours(cfg: KnnConfig, bank_size: int | None) -> tuple[int, str]:
    """How many neighbours vote, and why they are fewer than usual.

    >>> settle_neighbours(KnnConfig(), 500)
    (20, '')
    >>> settle_neighbours(KnnConfig(k=50), 15)  # refused where it runs
    (50, '')

    Args:
        bank_size: images to choose from; None = not known.
    """
    if cfg.k is not None or bank_size is None or bank_size >= NEIGHBOURS:
        return cfg.k or NEIGHBOURS, ""
    note = f"kNN asks k = {bank_size} neighbours instead of {NEIGHBOURS}: the bank has no more."
    return bank_size, note


def settle_shots(
    cfg: LinearConfig, sizes: Sequence[int] | None, names: Sequence[str] = ()
) -> tuple[list[int | float | str], str]:
    """Which probes there are, and why they are not the usual ones.

    >>> settle_shots(LinearConfig(), [500, 61])[0], settle_shots(LinearConfig(), [500, 1])[0]
    ([61], ['full'])

    Args:
        sizes: labelled images of each class in the set that is fitted on; None = not known.
        names: of the classes, for the note; ids where there are none.
    """
    if cfg.shots is not None:
        return list(cfg.shots), ""
    if cfg.fit_on == "train":
        return ["full"], ""
    if sizes is None or min(sizes) >= SHOTS:
        return [SHOTS], ""
    least = min(range(len(sizes)), key=lambda label: sizes[label])
    name = f"'{names[least]}'" if names else str(least)
    why = f"class {name} has {sizes[least]} labelled images"
    if sizes[least] < _LEAST:
        return ["full"], (
            f"the linear probe is fitted on all images, not on {SHOTS} of each class: {why}."
        )
    return [sizes[least]], (
        f"the linear probe is fitted on {sizes[least]} images of each class, not on {SHOTS}: "
        f"{why}. eval.linear.shots=[full] takes all images."
    )
