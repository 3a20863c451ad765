# SPDX-License-Identifier: MIT
"""Small copies of a few images, kept beside a run's results: a page shows them without the data.

Which test images follows from their labels alone, so that all runs on one test set keep the same.

Legend: G images of the gallery, Q of them of rare classes, K neighbours, P images of an OOD pool, S
side in pixels, N test images, C classes.
"""

import json
import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ltplugins.core.files import atomic_path
from ltplugins.eval.banks import Features
from ltplugins.metrics.groups import rank_classes

log = logging.getLogger(__name__)

FILE = "gallery.npz"
FORM = 1
SIDE = 40  # pixels, at most
QUERIES, NEIGHBOURS = 8, 5
PER_CLUSTER = 6
_NONE = np.zeros(0, dtype=np.int64)
_NO_IMAGES = np.zeros((0, 1, 1, 3), dtype=np.uint8)


@dataclass
class Gallery:
    """What a run keeps for pages.

    Attributes:
        about: ``test``, the key of the test features; ``protocol`` that the predictions are of;
            ``bank``, the part in which neighbours were looked for.
        places: Int[G], positions in the test set.
        targets: Int[G].
        images: uint8 [G S S 3].
        preds: Int[G], or empty: nobody has voted.
        queries: Int[Q], rows of the above, of the rarest classes.
        near_images, near_targets: uint8 [Q K S S 3] and Int[Q K], of their nearest in the bank,
            the nearest first.
        pool_images: uint8 [P S S 3], chosen images of a pool; pool_clusters: Int[P], of which
            cluster of training images; pool_sizes: how many were chosen for each cluster.
    """

    about: dict[str, str]
    places: np.ndarray
    targets: np.ndarray
    images: np.ndarray
    preds: np.ndarray = field(default_factory=_NONE.copy)
    queries: np.ndarray = field(default_factory=_NONE.copy)
    near_images: np.ndarray = field(default_factory=_NO_IMAGES.copy)
    near_targets: np.ndarray = field(default_factory=_NONE.copy)
    pool_images: np.ndarray = field(default_factory=_NO_IMAGES.copy)
    pool_clusters: np.ndarray = field(default_factory=_NONE.copy)
    pool_sizes: np.ndarray = field(default_factory=_NONE.copy)


def pick_points(targets: Tensor, limit: int, seed: int = 0) -> Tensor:
    """Return sorted positions of at most ``limit`` images, as evenly over classes as they allow.

    A smaller limit gives a part of what a larger one gives.
    """
    rng = np.random.default_rng(seed)
    labels = targets.cpu().numpy()
    turn = np.empty(len(labels))
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        turn[rng.permutation(places)] = np.arange(len(places))
    # First every class's first image, then every class's second, and so on.
    order = np.lexsort((rng.random(len(labels)), turn))
    return torch.from_numpy(np.sort(order[:limit]))


def pick_queries(targets: np.ndarray, class_counts: Sequence[int], count: int = QUERIES) -> Any:
    """Rows of images of the rarest third of the classes, the rarest first, as many of each.

    Args:
        targets: Int[G]; of a class its first images are taken.
        class_counts: Int[C], training images.
    """
    rarest = rank_classes(class_counts)[::-1][: max(1, len(class_counts) // 3)]
    rarest = [c for c in rarest if (targets == c).any()][:count]
    if not rarest:
        return _NONE
    each = max(1, count // len(rarest))
    return np.concatenate([np.flatnonzero(targets == c)[:each] for c in rarest])


def nearest(bank: Features, feats: Tensor, count: int = NEIGHBOURS) -> tuple[Any, Any]:
    """Int[Q K], positions in the bank by cosine, the nearest first, and their labels."""
    cosines = F.normalize(feats, dim=1) @ F.normalize(bank.feats, dim=1).T
    found = cosines.topk(min(count, len(bank.targets)), dim=1).indices
    return found.numpy(), bank.targets[found].numpy()


def thumbnails(load: Callable[[int], np.ndarray], places: Sequence[int]) -> np.ndarray:
    """Small square copies, uint8 [n S S 3], of ``load(i)``, uint8 [H W 3]: the middle is kept."""
    images = [Image.fromarray(load(int(i))) for i in places]
    if not images:
        return _NO_IMAGES
    side = min(SIDE, max(min(image.size) for image in images))
    fitted = [np.asarray(ImageOps.fit(image.convert("RGB"), (side, side))) for image in images]
    return np.stack(fitted)


def chosen_of_pool(positions: np.ndarray, sizes: np.ndarray | None) -> tuple[Any, Any, Any]:
    """The first images of each cluster: positions, their clusters, and all clusters' sizes.

    Args:
        positions: Int[K], cluster after cluster, each one's nearest first.
        sizes: Int[C] of the clusters; None = one cluster.
    """
    sizes = np.array([len(positions)]) if sizes is None else np.asarray(sizes)
    starts = np.cumsum(sizes) - sizes
    parts = [positions[a : a + min(n, PER_CLUSTER)] for a, n in zip(starts, sizes, strict=True)]
    clusters = np.repeat(np.arange(len(sizes)), [len(part) for part in parts])
    return np.concatenate([_NONE, *parts]), clusters, sizes


def write_gallery(path: Path, found: Gallery) -> None:
    """Write the file, whole or not at all."""
    arrays = {name: value for name, value in vars(found).items() if name != "about"}
    about = json.dumps({"form": FORM, **found.about}, sort_keys=True)
    with atomic_path(path) as tmp:
        np.savez_compressed(tmp, about=np.asarray(about), **arrays)


def read_gallery(path: Path, test: str) -> Gallery | None:
    """The gallery of these test features; None without one, or where it is of others.

    Args:
        test: their key.
    """
    about = about_gallery(path)
    if about is None or about.get("test") != test:
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name != "about"}
        return Gallery(about, **arrays)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged (%s): its pictures are left out.", path, error)
        return None


def about_gallery(path: Path) -> dict[str, str] | None:
    """What a file says of itself; None without one, or of another form."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            about: Mapping[str, Any] = json.loads(str(archive["about"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return {k: str(v) for k, v in about.items() if k != "form"} if _is_known(about) else None


def _is_known(about: Mapping[str, Any]) -> bool:
    return isinstance(about, Mapping) and about.get("form") == FORM
