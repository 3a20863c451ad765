# SPDX-License-Identifier: MIT
"""What an evaluation will refuse is told before the training; what it will adapt to is not."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ltplugins.eval.foresight import lacking
from ltplugins.eval.options import EvalConfig, LinearConfig


def images(counts: list[int]) -> Any:
    source = SimpleNamespace(targets=np.repeat(np.arange(len(counts)), counts))
    cfg = SimpleNamespace(has_test_part=True, dataset="custom")
    return SimpleNamespace(
        cfg=cfg, probe_source=None, source=source, num_classes=2, class_names=("ant", "bee")
    )


@pytest.mark.parametrize(
    ("shots", "lines"), [(None, 0), (["full"], 0), ([0.1], 0), ([61], 0), ([100], 1)]
)
def test_only_a_wish_can_lack_images(shots: Any, lines: int) -> None:
    found = lacking(images([500, 61]), EvalConfig(linear=LinearConfig(shots)))
    assert len(found) == lines
    assert all("asks for 100 labelled images of each class, and class 'bee'" in s for s in found)
