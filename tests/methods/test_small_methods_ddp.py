# SPDX-License-Identifier: MIT
"""TS, Focal-SimCLR and SDCLR in two gloo processes: equal to one, and under Lightning's DDP."""

import os
import warnings

import lightning.pytorch as pl
import pytest
import torch

from ltplugins.methods.sdclr import SDCLRConfig, SDCLRMixin
from tests.kit.hosts import loader
from tests.kit.linear import linear_networks, linear_noise, loss_and_gradients
from tests.kit.ranks import join_ranks, run_ranks
from tests.kit.runs import build, quiet_trainer
from tests.kit.tiny import tiny_config

WORLD, IMAGES = 2, 8
BLOCKS = {
    "ts_simclr": {"ts": {"t_max": 3}},
    "ts_mocov2plus": {"ts": {"t_max": 3}},
    "focal": None,
    "sdclr_simclr": {"sdclr": {"prune_ratio": 0.5}},
    "sdclr_byol": {"sdclr": {"prune_ratio": 0.5}},
}
# Focal-SimCLR's mean is over the anchors of all ranks; the hosts' losses are means of ranks' means.
SHARES = {name: (slice(0, 4), slice(4, 8)) for name in BLOCKS}
UNEVEN = {"focal": (slice(0, 5), slice(5, 8))}


def method_config(name, folder):
    folder.mkdir(exist_ok=True)
    cfg = tiny_config(folder, name.split("_")[-1] if "_" in name else "simclr")
    cfg.method = name
    if name == "focal":
        cfg.method_kwargs = {"proj_hidden_dim": 16, "proj_output_dim": 8}
    else:
        cfg.method_kwargs.update(BLOCKS[name])
    return cfg


def one_step(name, folder, rows=slice(None)):
    model = linear_networks(build(method_config(name, folder))[0])
    if name.startswith("sdclr"):
        block = BLOCKS[name]["sdclr"]
        SDCLRMixin.setup_wrapper(model, SDCLRConfig(**block))  # for the networks of now
        model.on_train_epoch_start()
    indexes, views, targets = linear_noise(IMAGES)
    batch = [indexes[rows], [view[rows] for view in views], targets[rows]]
    return loss_and_gradients(model, batch)


def under_lightning(name, folder):
    """Two real steps with real BatchNorms: weights, masks, and what DDP leaves alone."""
    seen = {}

    class Look(pl.Callback):
        def on_train_start(self, trainer, module):
            ddp = trainer.strategy.model
            seen["ignored"] = sorted(ddp.parameters_to_ignore)
            seen["broadcast"] = len(ddp.modules_buffers)

    cfg = method_config(name, folder)
    cfg.data.num_classes = 3
    model, _ = build(cfg)
    trainer = quiet_trainer(
        devices=WORLD,
        strategy="ddp",
        max_steps=2,
        callbacks=[Look()],
        default_root_dir=folder,
        use_distributed_sampler=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader(n=16))
    return {**seen, "state": model.state_dict(), "sparsity": model._sdclr_sparsity}


def on_rank(rank, world, folder):
    join_ranks(rank, world, folder, seconds=60)
    own = folder / str(rank)
    results = {name: one_step(name, own, shares[rank]) for name, shares in SHARES.items()}
    results["uneven"] = {name: one_step(name, own, s[rank]) for name, s in UNEVEN.items()}
    # Lightning uses the group that is there, and starts no process where LOCAL_RANK is set.
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29517")
    results["ddp"] = under_lightning("sdclr_byol", own)
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(on_rank, WORLD, folder, timeout=150)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def assert_equal(parts, whole, skip=()):
    mean = sum(part["loss"] for part in parts) / WORLD
    if not skip:
        torch.testing.assert_close(mean, whole["loss"], rtol=1e-10, atol=1e-12)
    for key, expected in whole["grads"].items():
        if not key.startswith(skip or ("-",)):
            mean = sum(part["grads"][key] for part in parts) / WORLD
            torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-12, msg=key)
    assert whole["grads"]["backbone.1.weight"].abs().max() > 1e-6


@pytest.mark.parametrize("name", BLOCKS)
def test_two_ranks_equal_one_on_the_joined_batch(name, ranks, tmp_path):
    assert_equal([rank[name] for rank in ranks], one_step(name, tmp_path))


@pytest.mark.parametrize("name", UNEVEN)
def test_uneven_ranks_equal_one_too(name, ranks, tmp_path):
    """The online classifier's loss is the host's: a mean of the ranks' means."""
    parts = [rank["uneven"][name] for rank in ranks]
    assert_equal(parts, one_step(name, tmp_path), skip=("classifier",))


def test_sdclr_under_lightnings_ddp(ranks):
    """No parameter is without gradient, ranks stay equal, and nobody sends masks around."""
    one, two = (rank["ddp"] for rank in ranks)
    assert one["state"].keys() == two["state"].keys()
    masks = [key for key in one["state"] if key.startswith("sdclr_masks.")]
    assert masks
    assert one["ignored"] == sorted(masks)
    for key, value in one["state"].items():
        if "running_" not in key:
            assert torch.equal(value, two["state"][key]), key
    assert 0.49 < one["sparsity"] < 0.51
    norm = "sdclr_norms.backbone.conv1.1.weight"
    assert not torch.equal(one["state"][norm], torch.ones_like(one["state"][norm]))
