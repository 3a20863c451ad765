# SPDX-License-Identifier: MIT
"""The ``dali`` engine where it cannot work: DALI is absent, or does not know a step."""

import dataclasses
import importlib.util

import numpy as np
import pytest

from ltplugins.core.errors import UserError
from ltplugins.data.augment.schema import AugmentationBlock, ProbConfig, parse_augmentations
from ltplugins.data.engines.dali import check as dali
from ltplugins.data.sources.arrays import from_arrays
from tests.kit.data import loader_of

PLAIN = {"crop_size": 16, "num_crops": 1}


def test_without_dali_one_message(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        dali.importlib.util, "find_spec", lambda n: None if n.startswith("nvidia") else real(n)
    )
    source = from_arrays(np.zeros((4, 16, 16), np.uint8), np.zeros(4, dtype=int))
    with pytest.raises(UserError, match="dali needs NVIDIA DALI, which is not installed") as error:
        loader_of(source, [PLAIN], engine="dali", batch_size=2)
    assert 'pip install -e ".[dali-cu13]"' in str(error.value)
    assert 'pip install -e ".[dali]"' in str(error.value)
    assert "data.engine: batched" in str(error.value)


def test_a_step_that_dali_does_not_know_is_refused(monkeypatch):
    """The schema may get a step that this engine has not; it must not be dropped in silence."""

    @dataclasses.dataclass(frozen=True)
    class Extended(AugmentationBlock):
        posterize: ProbConfig = dataclasses.field(default_factory=ProbConfig)

    monkeypatch.setattr(dali.importlib.util, "find_spec", lambda name: True)
    (block,) = parse_augmentations([PLAIN])
    values = {f.name: getattr(block, f.name) for f in dataclasses.fields(block)}
    dali.check_dali([Extended(**values)])
    message = (
        r"augmentations\[1\].posterize: the engine dali cannot do it. Set data.engine: batched"
    )
    with pytest.raises(UserError, match=message):
        dali.check_dali([block, Extended(**values, posterize=ProbConfig(prob=0.5))])


def test_every_step_of_the_schema_is_known():
    """A step that is added to the schema must be added to the engine, or stay refused there."""
    steps = {f.name for f in dataclasses.fields(AugmentationBlock)}
    assert steps >= dali.STEPS
