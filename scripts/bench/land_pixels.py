# SPDX-License-Identifier: MIT
"""What land_pack's pixels give without any network: the bar beside docs/segment.md's numbers.

    python scripts/bench/land_pixels.py [--stride 64] [--pixels 200000] [--folds 0]

The colours of a pixel and its eight neighbours, 27 numbers, classified by gradient boosting of
histograms, on the spatial split of ``ltplugins segment``. Fitted on pixels drawn from the training
crops, plain and with balanced weights; scored on all pixels of the test crops. Neighbours beyond a
crop's edge are the edge's own.
"""

import argparse

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.ensemble import HistGradientBoostingClassifier

from ltplugins.downstream.segmentation.options import MaskData
from ltplugins.downstream.segmentation.pairs import ArrayPairs
from ltplugins.downstream.segmentation.scores import confusion, pixel_scores
from ltplugins.downstream.segmentation.sets import MaskSet, open_masks

BARS = {"boosting on 3x3 colours": None, "the same, balanced": "balanced"}


def neighbours(images: np.ndarray) -> np.ndarray:
    """The colours around each pixel, uint8 [N H W 27]."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    windows = sliding_window_view(padded, (3, 3), axis=(1, 2))
    return windows.reshape(*images.shape[:3], 27)


def draw(pairs: ArrayPairs, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some pixels of a part: uint8 [count 27], uint8 [count]."""
    places = np.random.default_rng(seed).permutation(pairs.masks.size)[:count]
    crops, rest = np.divmod(places, pairs.masks[0].size)
    x = np.empty((len(places), 27), np.uint8)
    for crop in np.unique(crops):
        mine = crops == crop
        x[mine] = neighbours(pairs.images[crop : crop + 1]).reshape(-1, 27)[rest[mine]]
    return x, pairs.masks.ravel()[places]


def score(model: HistGradientBoostingClassifier, masks: MaskSet) -> dict:
    """The numbers of ``ltplugins segment`` on the test crops."""
    matrix = torch.zeros(masks.num_classes, masks.num_classes, dtype=torch.int64)
    for start in range(0, len(masks.test), 64):
        x = neighbours(masks.test.images[start : start + 64]).reshape(-1, 27)
        y = masks.test.masks[start : start + 64].ravel().astype(np.int64)
        preds = torch.from_numpy(model.predict(x).astype(np.int64))
        matrix += confusion(preds, torch.from_numpy(y), masks.num_classes)
    return pixel_scores(matrix, masks.counts.images.tolist(), masks.counts.pixels.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stride", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=200_000)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    print("| fold | bar | mIoU | pixel accuracy | rare by images | rare by pixels | frequent |")
    print("|---" * 7 + "|")
    for fold in args.folds:
        masks = open_masks(MaskData(stride=args.stride, fold=fold))
        x, y = draw(masks.train, args.pixels, fold)
        for name, weight in BARS.items():
            model = HistGradientBoostingClassifier(
                max_iter=args.iterations, class_weight=weight, early_stopping=False, random_state=0
            ).fit(x, y)
            found = score(model, masks)
            groups = found["groups"]
            values = (
                found["miou"], found["accuracy"], groups["images"]["rare"],
                groups["pixels"]["rare"], groups["pixels"]["frequent"],
            )  # fmt: skip
            print(f"| {fold} | {name} |", " | ".join(f"{100 * v:.1f}" for v in values), "|")


if __name__ == "__main__":
    main()
