# SPDX-License-Identifier: MIT
"""What a run says of itself before it trains."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch

from ltplugins.config.run import RunConfig
from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.records import SMALL_IMAGE, DataRecord
from ltplugins.data.training_set import TrainingSet
from ltplugins.host.detect import HostInfo
from ltplugins.host.stem import has_stem, is_small
from ltplugins.training.memory import tell_memory

log = logging.getLogger(__name__)


def announce(
    run: RunConfig,
    data: TrainingSet,
    model: Any,
    host: HostInfo,
    device: torch.device,
    needed_bytes: int,
    lacking: Sequence[str] = (),
) -> None:
    """Say method, host, data, network, device, memory and folder; what has no effect; on request,
    the augmentations.

    Args:
        run: its config.
        data: what it trains on.
        model: the host's method, which has a backbone.
        host: that was found.
        device: that is trained on.
        needed_bytes: of its memory.
        lacking: what a later stage will need and the config does not give.
    """
    params = sum(p.numel() for p in model.backbone.parameters()) / 1e6
    counts = sorted((int(n) for n in data.class_counts), reverse=True)
    log.info("%s; %s", run.method, host.describe())
    log.info(
        "%s: %d images, %d classes of %d to %d images, split %s",
        run.data.dataset,
        data.num_samples,
        data.num_classes,
        counts[0],
        counts[-1],
        data.split.hash[:12],
    )
    if data.ood_source is not None:
        pool = run.data.ood
        name = "a pool of its own" if pool is None else pool.train_path or pool.dataset
        log.info("OOD pool: %s, %d images", name, data.num_ood)
    log.info("%s, %.1f M parameters; run folder %s", run.backbone.name, params, run.output_dir)
    if has_stem(model.backbone):
        crop = max(block.crop_size for block in run.augmentations)
        _tell_stem(is_small(model.backbone), data.record, crop)
    tell_memory(run, needed_bytes, device)
    _tell_workers(run.data, os.cpu_count() or 1)
    names = [b if isinstance(b, str) else b["_target_"] for b in (*run.loggers, *run.callbacks)]
    if names:
        log.info("loggers and callbacks beside our own: %s", ", ".join(names))
    for line in (*run.remarks, *lacking):
        log.warning(line)
    if run.debug_augmentations:
        for i, block in enumerate(run.augmentations):
            log.info("augmentations[%d]: %s", i, block)


def _tell_workers(data: DataConfig, processors: int) -> None:
    """Say where the processes that load images outnumber what they run on."""
    if data.engine == "workers" and data.num_workers > processors:
        log.info(
            "data.num_workers=%d, and here are %d processors: more processes load no faster",
            data.num_workers,
            processors,
        )


def _tell_stem(small: bool, record: DataRecord, crop: int) -> None:
    """Say which stem a ResNet has, and where its views are much larger than the images are."""
    log.info(
        "%s, for images of %d pixels%s",
        "small stem, at full resolution" if small else "large stem, at a quarter of the resolution",
        record.image_size,
        " (the median of a sample)" if record.name == "custom" else "",
    )
    if small and crop > SMALL_IMAGE:
        log.warning(
            "a small stem takes crops of %d pixels at sixteen times the memory and time of a large "
            "one. Set backbone.small_stem=false, or smaller crops (augmentations=small).",
            crop,
        )
