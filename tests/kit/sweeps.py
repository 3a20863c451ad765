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
    patch.setattr("ltplugins.report.pages.write._draw", lambda *_: [])
    patch.setattr("ltplugins.stages.report._embed_one_a_row", lambda _: None)
    return trained
