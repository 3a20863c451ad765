# SPDX-License-Identifier: MIT
"""Trained runs for the stages: what ``ltplugins.runs.model`` opens, on a data set's record."""

from typing import Any

from torch import nn

from ltplugins.data.sources.records import DataRecord
from ltplugins.runs.model import TrainedRun, load_model, open_run

__all__ = ["TrainedRun", "load_backbone", "load_trained", "open_run"]


def load_trained(run: TrainedRun, record: DataRecord) -> Any:
    """The run's model with all weights that its inference needs; see ``load_model``."""
    return load_model(run, record.num_classes, record.small_stem)


def load_backbone(run: TrainedRun, record: DataRecord) -> nn.Module:
    """Its backbone alone.

    Raises:
        UserError: keys are missing, left over or of another shape; none is skipped in silence.
    """
    return load_trained(run, record).backbone
