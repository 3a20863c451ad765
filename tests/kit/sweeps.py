# SPDX-License-Identifier: MIT
"""Sweeps whose members train in this process, where they can be watched and broken."""

from typing import Any

import pytest

from ltplugins.stages import multirun
from ltplugins.stages.pretrain import pretrain


def train_in_process(patch: pytest.MonkeyPatch) -> list[str]:
    """Members train here, and reports draw nothing: pictures have tests of their own, and take
    longer than these runs.

    Returns:
        The members' names, in the order in which they come to train.
    """
    trained: list[str] = []

    def train(sweep: Any, member: Any) -> None:
        trained.append(member.name)
        cfg = member.cfg.host.copy()
        cfg.output_dir = str(sweep.folder / member.name)
        pretrain(cfg)

    patch.setattr(multirun, "_train", train)
    draw_nothing(patch)
    return trained


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Leave a report's page empty of pictures: they take longer than the runs."""
    patch.setattr(
        "ltplugins.report.plates.render", lambda plate, *_: ["<svg></svg>"] * len(plate.panels)
    )
    patch.setattr("ltplugins.stages.report._look_closer", lambda _: None)
