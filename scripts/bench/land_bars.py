# SPDX-License-Identifier: MIT
"""What land_pack's tiles give without any features: the bars beside docs/land.md's numbers.

    python scripts/bench/land_bars.py [--tile 32] [--stride 16] [--least 100] [--folds 0 1 2 3 4]

Six numbers a tile, mean and standard deviation of its three colours. Bars are fitted on the
training part and scored on the test part of each fold: the largest class, the five nearest
neighbours, and a logistic regression, plain and with balanced weights. Accuracy overall, balanced,
and by tercile of the classes' training counts. Then how well one such number tells land_pool from
the tiles.
"""

import argparse
import math

import numpy as np
import torch
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.base import Source
from ltplugins.data.sources.build import build_source
from ltplugins.metrics.groups import group_accuracy, shot_groups

BARS = {
    "largest class": lambda: DummyClassifier(),
    "5-NN on colours": lambda: KNeighborsClassifier(5),
    "logistic on colours": lambda: LogisticRegression(max_iter=2000),
    "the same, balanced": lambda: LogisticRegression(max_iter=2000, class_weight="balanced"),
}
COLUMNS = ("overall", "balanced", "many", "medium", "few")


def colours(source: Source) -> np.ndarray:
    """Mean and standard deviation of each tile's colours, Float[N 6]."""
    assert source.images is not None
    pixels = source.images.reshape(len(source), -1, 3) / 255.0
    return np.concatenate([pixels.mean(1), pixels.std(1)], axis=1)


def score(found: np.ndarray, test: Source, counts: list[int]) -> list[float]:
    """Accuracies in per cent, as COLUMNS, as ``ltplugins evaluate`` counts them."""
    preds, targets = torch.from_numpy(found), torch.from_numpy(test.targets)
    scores = group_accuracy(preds, targets, shot_groups(counts, "tercile"), len(counts))
    values = [getattr(scores, name) for name in COLUMNS]
    return [math.nan if value is None else 100 * value for value in values]


def bars(cfg: DataConfig) -> dict[str, list[float]]:
    """Each bar's accuracies on one fold."""
    train, test = build_source(cfg, "train"), build_source(cfg, "test")
    counts = np.bincount(train.targets, minlength=train.num_classes).tolist()
    x, rows = colours(test), {}
    for name, build in BARS.items():
        model = make_pipeline(StandardScaler(), build()).fit(colours(train), train.targets)
        rows[name] = score(model.predict(x), test, counts)
    return rows


def pool_auroc(cfg: DataConfig) -> list[float]:
    """How well each of the six numbers tells the pool from the training tiles."""
    tiles, pool = (colours(build_source(c)) for c in (cfg, _pool_of(cfg)))
    is_pool = np.repeat([0, 1], [len(tiles), len(pool)])
    found = [roc_auc_score(is_pool, np.concatenate([tiles, pool])[:, i]) for i in range(6)]
    return [max(auroc, 1 - auroc) for auroc in found]


def _pool_of(cfg: DataConfig) -> DataConfig:
    return DataConfig("land_pool", **cfg.given_of_land)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tile", type=int)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--least", type=int)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    cut = {"tile": args.tile, "stride": args.stride, "least": args.least}
    cfgs = [DataConfig("land_pack", **cut, fold=fold) for fold in args.folds]
    found = [bars(cfg) for cfg in cfgs]
    print(f"{cfgs[0].land}, folds {args.folds}, in per cent, mean (std)")
    print("| bar |", " | ".join(COLUMNS), "|")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name in BARS:
        values = np.array([rows[name] for rows in found])
        cells = [f"{m:.1f} ({s:.1f})" for m, s in zip(values.mean(0), values.std(0), strict=True)]
        print(f"| {name} |", " | ".join(cells), "|")
    aurocs = [max(pool_auroc(cfg)) for cfg in cfgs]
    print(f"land_pool against the tiles by one colour number: AUROC {np.mean(aurocs):.2f}")


if __name__ == "__main__":
    main()
