# SPDX-License-Identifier: MIT
"""The images of a segmentation: training, validation and test part, looked through once.

Legend: C classes.
"""

import dataclasses
import hashlib
import logging
from dataclasses import dataclass

import numpy as np

from ltplugins.core.errors import UserError
from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.land.crops import land_crops
from ltplugins.data.sources.land.options import LandConfig
from ltplugins.downstream.segmentation.formats import file_pairs
from ltplugins.downstream.segmentation.options import IGNORE, MaskData
from ltplugins.downstream.segmentation.pairs import (
    ArrayPairs,
    Counts,
    FilePairs,
    Pairs,
    count,
    require_labels,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskSet:
    """Images with masks.

    Attributes:
        train, test: parts; val: None where there is none beside the test part.
        class_names: C.
        counts: of the training masks.
        description: what it is and how it was split.
    """

    train: Pairs
    val: Pairs | None
    test: Pairs
    class_names: tuple[str, ...]
    counts: Counts
    description: str

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    def fingerprint(self) -> str:
        """A hash of what lies there."""
        parts = [part.fingerprint() for part in (self.train, self.test)]
        return hashlib.sha256(" ".join([*parts, *self.class_names]).encode()).hexdigest()


def open_masks(data: MaskData) -> MaskSet:
    """Open a set and look through its training masks.

    Raises:
        UserError: a folder or file that is absent, an image without a mask, a mask of another size
            than its image or with a label that is no class, a set of one class.
    """
    found = _land(data) if data.is_land else _files(data)
    seen = int((found.counts.pixels > 0).sum())
    if seen < 2:
        raise UserError(
            f"data: expected training masks of two classes or more, got {seen}: there is nothing "
            f"to tell apart. Give other masks, or check data.ignore."
        )
    return found


def on_the_split_of(theirs: DataConfig, ours: MaskData) -> MaskData:
    """Split land_pack as an encoder's run did: then it has seen no pixel of the test part.

    Args:
        theirs: what the encoder was trained on, whatever that is.
        ours: what is left open is filled in.
    """
    if not ours.is_land or theirs.dataset != "land_pack":
        return ours
    split = {key: getattr(theirs.land, key) for key in ("block", "folds", "fold")}
    for key, value in split.items():
        given = getattr(ours, key)
        if given is not None and given != value:
            log.warning(
                "data.%s is %s, and the encoder was trained with %s: it has seen places of the "
                "test part, without their masks.", key, given, value,
            )  # fmt: skip
    kept = {key: value for key, value in split.items() if getattr(ours, key) is None}
    return dataclasses.replace(ours, **kept)


def _land(data: MaskData) -> MaskSet:
    known = LandConfig()
    cfg = LandConfig(
        tile=data.tile,
        stride=data.stride,
        block=data.block or known.block,
        folds=data.folds or known.folds,
        fold=known.fold if data.fold is None else data.fold,
    )
    parts = {
        part: land_crops(part, cfg, least_land=data.least_land)  # type: ignore[arg-type]
        for part in ("train", "val", "test")
    }
    for part, crops in parts.items():
        if not len(crops.images):
            raise UserError(
                f"data.tile: expected crops in each part, got none of {cfg.tile} pixels in "
                f"{part}. Lower data.tile or data.least_land, or raise data.block."
            )
    pairs = {part: ArrayPairs(c.images, c.masks, f"land_pack {c.corners.tolist()}")
             for part, c in parts.items()}  # fmt: skip
    names = parts["train"].class_names
    return MaskSet(
        pairs["train"], pairs["val"], pairs["test"], names, count(pairs["train"], len(names)),
        f"land_pack, crops of {cfg.tile} pixels, stride {cfg.step}, land >= {data.least_land:g}, "
        f"blocks of {cfg.block} degrees, fold {cfg.fold} of {cfg.folds}",
    )  # fmt: skip


def _files(data: MaskData) -> MaskSet:
    parts: dict[str, FilePairs] = {}
    names: list[str] | None = None
    for part in ("train", "test"):
        parts[part], names = file_pairs(data, part)
        parts[part].require_sizes()
    for part, pairs in parts.items():
        require_labels(pairs, part)
    if names is None:
        num_classes = data.num_classes or _largest(parts["train"]) + 1
        names = [f"class {label}" for label in range(num_classes)]
        allowed = np.arange(256) < num_classes
        allowed[data.ignore] = True
        require_labels(FilePairs(**{**vars(parts["test"]), "allowed": allowed}), "test")
    counts = count(parts["train"], len(names))
    description = f"{data.format}, {len(parts['train'])} training images"
    return MaskSet(parts["train"], None, parts["test"], tuple(names), counts, description)


def _largest(pairs: FilePairs) -> int:
    """The largest class of the masks, -1 where all is ignored."""
    counts = count(pairs, IGNORE)
    return int(np.flatnonzero(counts.pixels).max(initial=-1))
