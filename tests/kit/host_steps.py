# SPDX-License-Identifier: MIT
"""Two steps of a method on noise, as a host's own main trains it: no data module, no index of ours.

For what is peculiar to a method on the real solo-learn; tests/methods/matrix has the rest.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch

from ltplugins.host import METHODS, prepare
from tests.kit.runs import quiet_trainer

IMAGES, BATCH = 12, 4
VIT = {"backbone__name": "vit_tiny", "backbone__kwargs": {"img_size": 16, "patch_size": 8}}


class Views(torch.utils.data.Dataset[Any]):
    """Noise, ``large`` views of 16 pixels and ``small`` ones of 12; position i is index i.

    Args:
        targets: of the images, i % 3 if none are given.
        known: the labels can be read without loading an image, as of torchvision's data sets.
        train: with all views; one otherwise, and no index.
    """

    def __init__(
        self,
        large: int = 2,
        small: int = 0,
        *,
        targets: Sequence[int] | None = None,
        known: bool = False,
        train: bool = True,
    ) -> None:
        g = torch.Generator().manual_seed(0)
        self.views = [torch.randn(IMAGES, 3, 16, 16, generator=g) for _ in range(large)]
        self.views += [torch.randn(IMAGES, 3, 12, 12, generator=g) for _ in range(small)]
        self._labels, self.train = targets or [i % 3 for i in range(IMAGES)], train
        if known:
            self.targets = self._labels

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, i: int) -> Any:
        if not self.train:
            return self.views[0][i], self._labels[i]
        return torch.tensor(i), [view[i] for view in self.views], torch.tensor(self._labels[i])


def make(cfg: Any) -> Any:
    """The host's method of a config, from a fixed seed."""
    prepare()
    torch.manual_seed(0)
    return METHODS[cfg.method](cfg)


def two_steps(
    model: Any, views: Views, *, val: Views | None = None, **kwargs: Any
) -> dict[str, float]:
    """Train for two steps on shuffled images; the metrics, whose losses are finite."""
    limits = {"limit_train_batches": 2, "limit_val_batches": 0 if val is None else 1.0}
    trainer = quiet_trainer(max_epochs=1, **limits, **kwargs)
    loaders = [torch.utils.data.DataLoader(views, batch_size=BATCH, shuffle=True)]
    if val is not None:
        loaders.append(torch.utils.data.DataLoader(val, batch_size=BATCH))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, *loaders)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    losses = [value for key, value in metrics.items() if "loss" in key]
    assert losses
    assert torch.tensor(losses).isfinite().all(), metrics
    return metrics


class Watch(pl.Callback):
    """The indexes that each step was fed."""

    def __init__(self) -> None:
        self.indexes: list[int] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, _: int):
        self.indexes += batch[0].tolist()
