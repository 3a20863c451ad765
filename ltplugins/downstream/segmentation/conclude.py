# SPDX-License-Identifier: MIT
"""The end of a segmentation: every pixel of the test part classified, counted and written down.

Legend: B batch, C classes, H, W of an image.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ltplugins.downstream.segmentation.data import plain_loader
from ltplugins.downstream.segmentation.examples import Example, choose_examples, write_examples
from ltplugins.downstream.segmentation.pairs import Pairs
from ltplugins.downstream.segmentation.results import SegmentResults
from ltplugins.downstream.segmentation.scores import confusion, frequency_groups, pixel_scores
from ltplugins.downstream.segmentation.segmenter import Segmenter
from ltplugins.downstream.segmentation.sets import MaskSet
from ltplugins.downstream.segmentation.views import PlainView
from ltplugins.eval.extractor import find_device
from ltplugins.report.masks import draw_masks
from ltplugins.report.style import save, theme
from ltplugins.runs.facts import now


def conclude_segmentation(
    model: Segmenter, masks: MaskSet, view: PlainView, label: str, weights: str, out: Path
) -> SegmentResults:
    """Score the test part, write ``results.json`` and pictures, and return the numbers.

    Args:
        model: trained.
        masks: the set.
        view: of test images.
        label: what results are called by.
        weights: hash of those that the encoder started from, or ``random``.
        out: the run's folder.
    """
    options, loss = model.options, model.options.loss
    images = [int(n) for n in masks.counts.images]
    pixels = [int(n) for n in masks.counts.pixels]
    rare = frequency_groups(pixels)["rare"]
    keep = choose_examples(masks.test, rare, options.pictures)
    matrix, examples = predict(
        model.net, masks.test, view,
        num_classes=masks.num_classes, batch_size=options.batch_size,
        num_workers=options.data.num_workers, keep=keep,
        device=find_device("cpu" if options.accelerator == "cpu" else "auto"),
    )  # fmt: skip
    scores = pixel_scores(matrix, images, pixels)
    results = SegmentResults(
        run=out.name,
        method=label,
        seed=options.seed,
        epochs=model.current_epoch,  # completed ones
        encoder={"run": options.run, "weights": weights},
        decoder=options.decoder.name,
        loss={**loss.weights, **({"tau": loss.tau} if loss.adjusted else {})},
        data={"description": masks.description, "hash": masks.fingerprint()},
        class_names=list(masks.class_names),
        image_counts=images,
        pixel_counts=pixels,
        confusion=matrix.tolist(),
        notes=_notes(scores["absent"], masks),
        evaluated=now(),
        **scores,
    )
    results.write(out / "results.json")
    if examples:
        write_examples(examples, out / "examples.npz")
        with theme("segmentation"):
            save(draw_masks(examples, results.class_names, rare), out / "segmentation.png")
    return results


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


def _notes(absent: Sequence[int], masks: MaskSet) -> list[str]:
    lines = []
    if absent:
        names = ", ".join(masks.class_names[c] for c in absent)
        lines.append(f"no test pixel, left out of every mean: {names}")
    unseen = [masks.class_names[c] for c, n in enumerate(masks.counts.pixels) if n == 0]
    if unseen:
        lines.append(f"no training pixel: {', '.join(unseen)}")
    return lines
