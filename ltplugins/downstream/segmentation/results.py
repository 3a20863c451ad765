# SPDX-License-Identifier: MIT
"""``results.json`` of a segmentation.

Legend: C classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from ltplugins.core.records import Record

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class SegmentResults(Record):
    """The contents of ``results.json``; shares are fractions from 0 to 1, None = n/a.

    Attributes:
        task: tells this file from that of an evaluation.
        run, method, seed, epochs: of the segmentation.
        encoder: what it started from: a label, and a hash of the weights.
        data: in words, and a hash.
        image_counts, pixel_counts: Int[C], of the training masks.
        confusion: Int[C C] over all test pixels; rows are the truth.
        miou: mean of ``per_class``; accuracy: of pixels.
        absent: class ids without a test pixel, which no mean has.
        members, groups: by images and by pixels: frequent, common and rare, class ids and mean IoU.
        notes: what a reader must know.
    """

    FORM: ClassVar[int] = VERSION
    task: Literal["segmentation"] = "segmentation"
    version: int = VERSION
    run: str
    method: str
    seed: int
    epochs: int
    encoder: dict[str, str]
    decoder: str
    loss: dict[str, float]
    data: dict[str, str]
    class_names: list[str]
    image_counts: list[int]
    pixel_counts: list[int]
    confusion: list[list[int]]
    miou: float | None
    accuracy: float | None
    per_class: list[float | None]
    absent: list[int]
    members: dict[str, dict[str, list[int]]]
    groups: dict[str, dict[str, float | None]]
    notes: list[str]
    evaluated: str

    def faults(self) -> Iterator[str]:
        """Lists that are not of all classes, ids of no class, keys that a report needs."""
        count = len(self.class_names)
        lists = {name: getattr(self, name) for name in ("image_counts", "pixel_counts")}
        lists |= {"confusion": self.confusion, "per_class": self.per_class}
        lists |= {f"confusion[{i}]": row for i, row in enumerate(self.confusion)}
        for name, values in lists.items():
            if not count or len(values) != count:
                yield f"{name}: expected an element for each of {count} class_names"
        ids = [c for groups in self.members.values() for found in groups.values() for c in found]
        if not all(0 <= c < count for c in [*ids, *self.absent]):
            yield f"members, absent: expected class ids from 0 to {count - 1}"
        for name, block, keys in (
            ("data", self.data, ("description", "hash")),
            ("encoder", self.encoder, ("run",)),
            ("members", self.members, ("pixels",)),
        ):
            if not all(key in block for key in keys):
                yield f"{name}: expected {', '.join(keys)} in it"
