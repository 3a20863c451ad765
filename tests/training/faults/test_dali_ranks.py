# SPDX-License-Identifier: MIT
"""The ``dali`` engine in two processes by the command line: what each sees, broken and resumed."""

import json
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.data.engines.build import build_loader
from ltplugins.data.engines.loader import Loader
from ltplugins.data.samplers.base import Shard
from tests.kit.dali import DALI_MARKS, write_jpegs
from tests.kit.data import training_set
from tests.kit.launch import changed_cli, finish, one_line, start
from tests.kit.runs import assert_same_run, build, load
from tests.kit.tiny import tiny_config

# One worker runs them all: the unbroken run is trained once.
pytestmark = [*DALI_MARKS, pytest.mark.slow, pytest.mark.xdist_group("dali_ranks")]
COUNTS, PER_RANK, EPOCHS = (16, 9, 5), 5, 3
# Each rank writes down its batches; rank 1 may fail in the middle of the last epoch.
RECORDS = """
import json, os
from ltplugins.training.seeds import EpochSeed
def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
    place = trainer.current_epoch, batch_idx
    means = [[float(view[i].mean()) for view in batch[1]] for i in range(len(batch[0]))]
    row = [*place, batch[0].tolist(), batch[2].tolist(), means]
    with open(f"{os.environ['RECORDS']}.{trainer.global_rank}", "a") as file:
        print(json.dumps(row), file=file)
    if place == (2, 1) and trainer.global_rank == 1 and "FAIL" in os.environ:
        raise KeyError("a defect")
EpochSeed.on_train_batch_end = on_train_batch_end
"""


def launched(folder: Path, name: str, *overrides: str, **env: str) -> tuple[int, str]:
    """Exit code and standard error of a run that records."""
    command = changed_cli(folder / "records.py", RECORDS)
    return finish(start(command, folder, name, *overrides, RECORDS=str(folder / name), **env))


def rows(folder: Path, name: str, rank: int) -> list[list]:
    """What a rank has written: epoch, batch, indexes, targets, means of the views."""
    return [json.loads(line) for line in Path(f"{folder / name}.{rank}").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with JPEGs, ``tiny.yaml`` and the unbroken run of two ranks in ``whole``."""
    folder = tmp_path_factory.mktemp("dali_ranks")
    write_jpegs(folder / "train", COUNTS)
    data = {"format": "image_folder", "train_path": str(folder / "train"), "val_path": None}
    changes = {"data": {**data, "engine": "dali", "num_workers": 1}, "dali__device": "cpu"}
    changes |= {"optimizer__batch_size": PER_RANK, "max_epochs": EPOCHS, "log_every_n_steps": 1}
    changes |= {"devices": 2, "strategy": "ddp", "rank_timeout": 3600}
    OmegaConf.save(tiny_config(folder, **changes), folder / "tiny.yaml")
    code, errors = launched(folder, "whole")
    assert code == 0, errors[-3000:]
    return folder


def test_the_ranks_share_every_image_of_an_epoch(runs):
    total = sum(COUNTS)
    both = [rows(runs, "whole", rank) for rank in (0, 1)]
    orders = []
    for epoch in range(EPOCHS):
        shares = [[i for row in own if row[0] == epoch for i in row[2]] for own in both]
        assert len(shares[0]) == len(shares[1]) == total // 2
        assert sorted(shares[0] + shares[1]) == list(range(total))
        orders.append(shares)
    assert orders[0] != orders[1]
    for indexes, targets in [row[2:4] for own in both for row in own]:
        assert targets == np.repeat(np.arange(3), COUNTS)[indexes].tolist()
    filled = load(runs / "whole/checkpoints/last.ckpt")["state_dict"]["gh_memory_filled"]
    assert filled.shape == (total,)
    assert filled.all()


def test_the_views_are_those_of_one_process(runs):
    """An image has the same views of an epoch whoever draws it, so that none is another's."""
    cfg = OmegaConf.load(runs / "tiny.yaml")
    cfg.update(devices=1, strategy="auto")
    _, data = build(cfg)
    loader = data.train_dataloader()
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        expected = defaultdict(list)
        for indexes, views, _ in loader:
            for i, index in enumerate(indexes.tolist()):
                expected[index] = [float(view[i].mean()) for view in views]
        found = {
            index: means
            for rank in (0, 1)
            for row in rows(runs, "whole", rank)
            if row[0] == epoch
            for index, means in zip(row[2], row[4], strict=True)
        }
        assert found.keys() == expected.keys()
        for index, means in found.items():
            assert means == pytest.approx(expected[index], abs=1e-5), (epoch, index)


def still(folder: Path, engine: str, rank: int) -> Loader:
    """The loader of one of two ranks; nothing is random in its views."""
    cfg = OmegaConf.load(folder / "tiny.yaml")
    steps = cfg.augmentations[0]
    for step in (steps.color_jitter, steps.grayscale, steps.horizontal_flip):
        step.prob = 0
    steps.rrc.enabled = False
    cfg.data.engine = engine
    shard = Shard(rank, 2, cfg.seed)
    return build_loader(training_set(cfg), shard, torch.device("cpu"))


@pytest.mark.parametrize("rank", [0, 1])
def test_the_order_is_that_of_workers(rank, runs):
    """With nothing random in the views, they agree, up to the resizing."""
    whole = rows(runs, "whole", rank)
    dali, workers = (still(runs, engine, rank) for engine in ("dali", "workers"))
    for epoch in range(EPOCHS):
        for loader in (dali, workers):
            loader.sampler.set_epoch(epoch)
        drawn = [row[2:4] for row in whole if row[0] == epoch]
        for own, one, other in zip(drawn, dali, workers, strict=True):
            assert own == [one[0].tolist(), one[2].tolist()]
            assert own == [other[0].tolist(), other[2].tolist()]
            for view, expected in zip(one[1], other[1], strict=True):
                means = view.mean((1, 2, 3)), expected.mean((1, 2, 3))
                torch.testing.assert_close(*means, rtol=0, atol=0.005)


def test_a_broken_run_goes_on_as_the_unbroken_one(runs):
    code, errors = launched(runs, "broken", FAIL="1")
    assert code == 1
    one_line(errors, "error: rank 1 ended with ")
    assert load(runs / "broken/checkpoints/last.ckpt")["epoch"] == 1
    for rank in (0, 1):
        os.remove(f"{runs / 'broken'}.{rank}")
    code, errors = launched(runs, "broken")
    assert code == 0, errors[-3000:]
    assert "going on from" in errors
    assert_same_run(runs / "whole", runs / "broken")
    for rank in (0, 1):
        last = [row for row in rows(runs, "whole", rank) if row[0] == 2]
        assert rows(runs, "broken", rank) == last
