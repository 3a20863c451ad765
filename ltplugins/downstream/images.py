# SPDX-License-Identifier: MIT
"""The images of a fine-tuning: those that are trained on, held-out ones of the same, test images.

The held-out ones choose (when to stop, a temperature, a tau), so that no test label does.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.data.augment.plain import labelled, stream_images
from ltplugins.data.holdout import hold_out
from ltplugins.data.imbalance import Split, hash_indices
from ltplugins.data.samplers.base import require_step
from ltplugins.data.sources.base import Source
from ltplugins.data.training_set import TrainingSet
from ltplugins.eval.features import extract_features


@dataclass(frozen=True)
class Images:
    """What is trained on, and the rest.

    Attributes:
        whole: the training images before anything was held out: source, split, test part.
        fit: those that are trained on.
        held_out: the others.
    """

    whole: TrainingSet
    fit: TrainingSet
    held_out: Source


def split_images(cfg: RunConfig, whole: TrainingSet, fraction: float, world_size: int) -> Images:
    """Hold out a share of each class, by the run's seed; a class of one image keeps it.

    Of a source that knows the places of its images whole places are held out, and what lies across
    their border is neither trained on nor held out.

    Raises:
        UserError: images without a label, one class, or fewer images than a batch.
    """
    names = _require_classes(whole)
    indices, places = whole.split.indices, whole.source.places
    if places is not None:
        places = places[indices]
    chosen = hold_out(whole.targets, fraction, np.random.default_rng(cfg.seed), places)
    fit, held_out = (indices[positions] for positions in chosen)
    if not len(held_out):
        raise UserError(
            f"validation: no class of {', '.join(names[:3])} ... has a second image to hold out. "
            f"Keep more images (data.imbalance, data.fraction)."
        )
    require_step(len(fit), cfg.optimizer.batch_size, world_size)
    counts = np.bincount(whole.source.targets[fit], minlength=whole.num_classes)
    description = f"{whole.split.description}, without {len(held_out)} held-out images"
    if across := len(indices) - len(fit) - len(held_out):
        description += f" and {across} across the border of their places"
    split = Split(fit, counts.astype(np.int64), hash_indices(fit), description)
    data = TrainingSet(
        cfg.data,
        cfg.augmentations,
        cfg.optimizer.batch_size,
        source=whole.source,
        split=split,
        dali=cfg.dali,
    )
    return Images(whole, data, whole.source.subset(held_out))


def whole_set(cfg: RunConfig) -> TrainingSet:
    """All training images of the config, whatever the batch."""
    data = dataclasses.replace(cfg.data, drop_last=False)
    return TrainingSet(data, cfg.augmentations, 1, dali=cfg.dali)


def _require_classes(data: TrainingSet) -> list[str]:
    """The names of the classes that have images, two or more."""
    if not (data.targets >= 0).all():
        raise UserError(
            "finetune learns from labels, and some training images have none (-1). Give labelled "
            "ones: data.train_path=PATH data.no_labels=false."
        )
    names = [
        str(name) for name, n in zip(data.class_names, data.class_counts, strict=True) if n > 0
    ]
    if len(names) < 2:
        raise UserError(
            f"data: expected images of two classes or more, got one ({', '.join(names)}): there is "
            f"nothing to tell apart. Give another data.train_path, a folder per class."
        )
    return names


def features_of(
    backbone: nn.Module, source: Source, cfg: RunConfig, device: str | torch.device
) -> tuple[Tensor, Tensor]:
    """Float[N D] and Int[N], on the CPU, of all images of a source as the evaluation sees them."""
    order = np.arange(len(source))
    stream = stream_images(
        source,
        order,
        cfg.augmentations[0],
        batch_size=256,
        num_workers=cfg.data.num_workers,
        way_out="",
    )
    return extract_features(backbone, labelled(stream, source.targets), device)
