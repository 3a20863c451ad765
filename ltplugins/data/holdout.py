# SPDX-License-Identifier: MIT
"""Which training images are held out to choose by: a share of each class, or whole places.

Images of one place look alike, and tiles of a map overlap: where a source knows the places that its
images touch, whole places are held out, and an image that touches a place of each part is in none.

Legend: N images, C classes, K places that an image touches at most, P places.
"""

import numpy as np

_TRIED = 8  # places drawn, of which the one that fits the shares best is held out


def hold_out(
    labels: np.ndarray,
    fraction: float,
    rng: np.random.Generator,
    places: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split positions into (kept, held out), each sorted.

    Without places class by class: a class with two images or more gives at least one to each part;
    a single image is kept. With them as near to that as whole places allow: a class that lies in
    one place alone is kept.

    Args:
        labels: Int[N].
        fraction: of each class to hold out.
        places: Int[N K], numbers of the places that each image touches; None = each its own.
    """
    if places is not None:
        return _hold_out_places(labels, fraction, rng, places)
    val = []
    for label in np.unique(labels):
        found = np.flatnonzero(labels == label)
        held = min(max(1, round(fraction * len(found))), len(found) - 1)
        val.append(rng.permutation(found)[:held])
    chosen = np.sort(np.concatenate(val))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def _hold_out_places(
    labels: np.ndarray, fraction: float, rng: np.random.Generator, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Classes from the rarest on get places until their share is held out."""
    _, labels = np.unique(labels, return_inverse=True)
    totals = np.bincount(labels)
    wanted = np.maximum(1, np.round(fraction * totals))
    numbers, touched = np.unique(places, return_inverse=True)
    touched = touched.reshape(places.shape)
    is_held = np.zeros(len(numbers), dtype=bool)
    for label in np.argsort(totals, kind="stable"):
        order = rng.permutation(np.unique(touched[labels == label]))
        while True:
            _, held = parts(touched, is_held)
            if np.sum(labels[held] == label) >= wanted[label]:
                break
            fits = []
            for place in order[~is_held[order]]:
                cost = _cost(labels, touched, is_held, place, totals, wanted)
                fits += [] if cost is None else [(cost, place)]
                if len(fits) == _TRIED:
                    break
            if not fits:
                break
            is_held[min(fits, key=lambda fit: fit[0])[1]] = True
    return parts(touched, is_held)


def parts(touched: np.ndarray, is_held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images that touch kept places alone, and those that touch held-out ones alone.

    Args:
        touched: Int[N K], 0..P-1.
        is_held: Bool[P].
    """
    found = is_held[touched]
    return np.flatnonzero(~found.any(axis=1)), np.flatnonzero(found.all(axis=1))


def _cost(
    labels: np.ndarray,
    touched: np.ndarray,
    is_held: np.ndarray,
    place: int,
    totals: np.ndarray,
    wanted: np.ndarray,
) -> float | None:
    """How far the shares are from what is wanted with one place more.

    None where that leaves less than half of a class, or none of it.
    """
    more = is_held.copy()
    more[place] = True
    kept, held = parts(touched, more)
    left = np.bincount(labels[kept], minlength=len(totals))
    if (2 * left < totals).any() or not left.all():
        return None
    found = np.bincount(labels[held], minlength=len(totals))
    return float((((found - wanted) / totals) ** 2).sum())
