# SPDX-License-Identifier: MIT
"""A tiny file of claims, whose cells take a second each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.kit.tiny import write_arrays

COMMON = (
    "name=claims",
    "backbone={name: test_resnet, small_stem: false}",
    "optimizer.batch_size=8",
    "optimizer.lr=0.05",
    "enable_progress_bar=false",
    "limit_val_batches=0",
    "eval.knn.k=3",
    "eval.linear=null",
    "eval.groups=[tercile]",
    "eval.seeds=[0]",
    "eval.health=null",
)


def write_book(folder: Path, change: Callable[[Any], Any] = lambda book: None) -> Path:
    """Write ``claims.yaml`` with an arm, and another of two stages, on generated images."""
    train, test = folder / "train.npz", folder / "test.npz"
    if not train.exists():
        write_arrays(train)
        write_arrays(test, (8, 8, 8), seed=1)
    words = ["data=custom", "data.format=arrays", "data.engine=batched", "data.num_workers=0"]
    words += [f"data.train_path='{train}'", f"data.val_path='{test}'", "schedule=fashion"]
    words += ["augmentations=small", "augmentations.0.crop_size=16"]
    width = "method_kwargs.proj_hidden_dim=16"
    claim = {"paper": "none", "data": "tiny", "epochs": 1}
    book: dict[str, Any] = {
        "common": list(COMMON),
        "data": {"tiny": {"words": words, "pairs": [f"seed={n}" for n in range(6)]}},
        "arms": {
            "simclr": {"words": ["method=simclr", width]},
            "first": {"words": ["method=iccl", width]},
            "second": {
                "stage": "balance",
                "of": "first",
                "words": ["epochs=1", "batch_size=8"],
            },
        },
        "claims": [
            {
                "name": "tail",
                "statement": "The second stage serves the tail",
                "ours": "second",
                "base": "simclr",
                "measures": ["knn few", "classifier/knn balanced"],
                **claim,
            },
            {
                "name": "plain",
                "statement": "Labels are of no use",
                "ours": "simclr",
                "base": "first",
                "measures": ["knn overall"],
                **claim,
            },
        ],
    }
    change(book)
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(book), encoding="utf-8")
    return path
