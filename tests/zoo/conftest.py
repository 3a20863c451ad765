# SPDX-License-Identifier: MIT
"""Runs of one epoch that the tests of this folder share; they read them and work on copies."""

import shutil
import threading

import pytest

from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.zoo.serve import make_server
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


@pytest.fixture
def zoo(made_zoo, tmp_path, monkeypatch):
    """A copy of the made zoo, which is the one that commands speak of."""
    folder = shutil.copytree(made_zoo, tmp_path / "zoo")
    monkeypatch.setenv("LTPLUGINS_ZOO", str(folder))
    monkeypatch.setenv("LTPLUGINS_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def server(zoo):
    """``zoo serve`` of it, on a free port."""
    server = make_server(zoo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()
