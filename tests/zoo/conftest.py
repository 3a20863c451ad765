# SPDX-License-Identifier: MIT
"""Runs of one epoch that the tests of this folder share; they read them and work on copies."""

import pytest

from ltplugins.stages.pretrain import pretrain
from tests.kit.entries import make_entry
from tests.kit.tiny import tiny_config


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """timm's test_resnet with its ordinary stem, or torchvision's ResNet under solo-learn."""
    return pretrain(tiny_config(tmp_path_factory.mktemp("tiny"), "simclr", max_epochs=1))


@pytest.fixture(scope="session")
def small_stem_run(tmp_path_factory):
    """torchvision's resnet18 with the stem for small images."""
    changes = {"backbone__name": "resnet18", "backbone__small_stem": True, "max_epochs": 1}
    folder = tmp_path_factory.mktemp("small_stem")
    return pretrain(tiny_config(folder, "simclr", limit_train_batches=1, **changes))


@pytest.fixture(scope="session")
def made_zoo(tiny_run, tmp_path_factory):
    """A zoo with one entry, ``tiny``, of ``tiny_run``."""
    return make_entry(tiny_run, tmp_path_factory.mktemp("made") / "zoo")
