# SPDX-License-Identifier: MIT
"""What a run says of itself before it trains."""

import logging
from typing import Any

from ltplugins.config.run import RunConfig
from ltplugins.data.training_set import TrainingSet
from ltplugins.host.detect import HostInfo

log = logging.getLogger(__name__)


def announce(run: RunConfig, data: TrainingSet, model: Any, host: HostInfo) -> None:
    """Say method, host, data, size and folder; what has no effect; on request, the augmentations.

    Args:
        run: its config.
        data: what it trains on.
        model: the host's method, which has a backbone.
        host: that was found.
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
    log.info("%s, %.1f M parameters; run folder %s", run.backbone.name, params, run.output_dir)
    names = [b if isinstance(b, str) else b["_target_"] for b in (*run.loggers, *run.callbacks)]
    if names:
        log.info("loggers and callbacks beside our own: %s", ", ".join(names))
    for line in run.remarks:
        log.warning(line)
    if run.debug_augmentations:
        for i, block in enumerate(run.augmentations):
            log.info("augmentations[%d]: %s", i, block)
