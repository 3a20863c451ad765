# SPDX-License-Identifier: MIT
"""``results.json`` of a segmentation, and the pictures beside it.

Legend: C classes, N test images, H, W of one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from ltplugins.core.files import atomic_path
from ltplugins.core.records import Record
from ltplugins.downstream.segmentation.data import plain_loader
from ltplugins.downstream.segmentation.pairs import Pairs, mask_of
from ltplugins.downstream.segmentation.scores import confusion
from ltplugins.downstream.segmentation.views import PlainView

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


class Example(NamedTuple):
    """An image uint8 [H W 3], its mask and what was predicted, uint8 [H W] each."""

    image: np.ndarray
    truth: np.ndarray
    found: np.ndarray


def predict(
    net: nn.Module,
    pairs: Pairs,
    view: PlainView,
    *,
    num_classes: int,
    batch_size: int,
    num_workers: int,
    device: str | torch.device,
    keep: Sequence[int] = (),
) -> tuple[torch.Tensor, list[Example]]:
    """Classify every pixel of a part.

    Args:
        net: Float[B 3 H W] to Float[B C H W].
        keep: images whose predictions are handed back.

    Returns:
        The confusion matrix Int[C C], and the kept ones in their order.
    """
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    found: dict[int, np.ndarray] = {}
    net.to(device).eval()
    start = 0
    with torch.inference_mode():
        for images, masks in plain_loader(pairs, view, batch_size, num_workers):
            preds = net(images.to(device)).argmax(dim=1).cpu()
            matrix += confusion(preds, masks, num_classes)
            for index in set(keep) & set(range(start, start + len(images))):
                found[index] = preds[index - start].numpy().astype(np.uint8)
            start += len(images)
    examples = []
    for index in keep:
        image, truth = pairs.pair(index)
        height, width = truth.shape
        examples.append(Example(image, truth, found[index][:height, :width]))
    return matrix, examples


def choose_examples(pairs: Pairs, rare: Sequence[int], count: int) -> list[int]:
    """Images to look at: one with most pixels of each rare class, then evenly through the part.

    Args:
        rare: class ids, those that matter most first.
        count: at most so many.
    """
    if count == 0:
        return []
    best: dict[int, tuple[int, int]] = {}
    for i in range(len(pairs)):
        pixels = np.bincount(mask_of(pairs, i).ravel(), minlength=256)
        for label in rare:
            if pixels[label] > best.get(label, (0, 0))[0]:
                best[label] = (int(pixels[label]), i)
    chosen = [best[label][1] for label in rare if label in best]
    even = np.linspace(0, len(pairs) - 1, count + 2)[1:-1].round().astype(int).tolist()
    return list(dict.fromkeys([*chosen, *even]))[:count]


def write_examples(examples: Sequence[Example], path: Path) -> None:
    """Write them as ``.npz``, so that pictures can be drawn again without the network."""
    arrays: dict[str, Any] = {}
    for i, example in enumerate(examples):
        arrays |= {f"{name}_{i}": value for name, value in example._asdict().items()}
    with atomic_path(path) as tmp:
        np.savez_compressed(tmp, **arrays)


def read_examples(path: Path) -> list[Example]:
    """What :func:`write_examples` has written."""
    with np.load(path) as file:
        count = len(file.files) // len(Example._fields)
        return [Example(*(file[f"{name}_{i}"] for name in Example._fields)) for i in range(count)]
