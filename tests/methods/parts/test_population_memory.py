# SPDX-License-Identifier: MIT
"""GH's memory sharded over two gloo processes: equal to the whole memory, bit for bit."""

import os
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

import ltplugins
from ltplugins.core.errors import UserError
from tests.kit.hosts import SIZE, make_batch, on_the_stand_in, tiny_cfg
from tests.kit.ranks import as_launched, join_ranks, run_ranks
from tests.kit.runs import build, fit, quiet_trainer
from tests.kit.tiny import tiny_config, write_arrays

pytestmark = on_the_stand_in
WORLD, IMAGES = 2, 21
GH = {"num_directions": 5, "warmup": 0, "ramp": 0, "num_iters": 20}
MEMORY = ("gh_memory", "gh_memory_filled")
# An image of both batches, one twice in a batch, and an OOD image of COLT (21).
INDEXES = [[3, 1, 20, 7, 4, 12, 0, 9], [4, 3, 5, 4, 20, 8, 2, 21]]


def two_steps(rows: slice, **gh: Any) -> dict[str, Any]:
    """Two steps on these rows of the batches, the prior recomputed after each.

    Linear maps for networks: BatchNorm would differ per rank by design.
    """
    from ltplugins.host.builtin import METHODS

    ltplugins.register()
    torch.manual_seed(0)
    cfg = tiny_cfg("simclr", data__num_samples=IMAGES, method_kwargs__gh={**GH, **gh})
    cfg.method = "gh_simclr"
    model: Any = METHODS["gh_simclr"](cfg)
    model.backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, model.features_dim))
    model.projector = nn.Linear(model.features_dim, 8)
    for seed, indexes in enumerate(INDEXES):
        _, views, targets = make_batch(8, seed=seed)
        batch = [torch.tensor(indexes)[rows], [v[rows] for v in views], targets[rows]]
        model.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss = model.training_step(batch, 0)
        loss.backward()
        model.on_train_epoch_end()
    rows_here = len(model.gh_memory)
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    return {
        "loss": loss.detach(),
        "grads": {k: p.grad for k, p in model.named_parameters() if p.grad is not None},
        "prior": model.gh_prior.clone(),
        "rows": rows_here,
        "memory": [checkpoint["state_dict"][name] for name in MEMORY],
    }


def train(folder: Path, name: str, epochs: int = 3, resume: str | None = None, **gh: Any) -> int:
    """A run of both ranks that saves every epoch; returns this rank's rows."""
    from ltplugins.config.sections import CheckpointSection
    from ltplugins.training.checkpoint import RunCheckpoint
    from ltplugins.training.seeds import EpochSeed

    changes = {f"method_kwargs__gh__{key}": value for key, value in gh.items()}
    model, data = build(tiny_config(folder, max_epochs=3, optimizer__batch_size=4, **changes))
    trainer = quiet_trainer(
        devices=WORLD, strategy="ddp", max_epochs=epochs, callbacks=[EpochSeed(0)]
    )
    (folder / name).mkdir(exist_ok=True)
    trainer.callbacks.append(RunCheckpoint(folder / name, {}, CheckpointSection(keep_prev=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, datamodule=data, ckpt_path=resume)
    return len(model.gh_memory)


def joined(rank: int) -> dict[str, Any]:
    """Shards of every type, over several chunks and with ranks that hold nothing."""
    from ltplugins.methods.parts import population_memory as gh_memory

    gh_memory._CHUNK_BYTES = 20
    found = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.bool):
        for rows in (0, 1, 2, 13):
            whole = torch.arange(rows * 3).view(rows, 3).to(dtype)
            back = gh_memory.join_shards(whole[rank::WORLD].contiguous(), rows)
            found[f"{dtype} {rows}"] = torch.equal(back, whole) if rank == 0 else len(back)
    return found


def on_rank(rank: int, world: int, folder: Path) -> dict[str, Any]:
    os.environ["LTPLUGINS_HOST"] = "builtin"
    one = two_steps(slice(None)) if rank == 0 else None  # before the ranks are joined
    join_ranks(rank, world, folder)
    rows = (slice(0, 5), slice(5, 8))[rank]
    results: dict[str, Any] = {
        "one": one,
        "whole": two_steps(rows),
        "sharded": two_steps(rows, memory_sharded=True),
    }
    as_launched(rank, world)
    train(folder, "whole")
    results["rows"] = train(folder, "sharded", memory_sharded=True)
    first = str(folder / "sharded/epoch=0.ckpt")
    train(folder, "resumed", resume=first, memory_sharded=True)
    results["joined"] = joined(rank)
    return results


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of the data and runs, and what each rank says."""
    folder = tmp_path_factory.mktemp("sharded")
    write_arrays(folder / "train.npz", (23, 12, 6))  # 41 images: ranks of 21 and 20 rows
    write_arrays(folder / "test.npz", (8, 8, 8), seed=1)
    return folder, run_ranks(on_rank, WORLD, folder)


@pytest.fixture(scope="module")
def folder(trained: tuple[Path, list[dict[str, Any]]]) -> Path:
    return trained[0]


@pytest.fixture(scope="module")
def ranks(trained: tuple[Path, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return trained[1]


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def test_steps_equal_those_with_the_whole_memory(ranks: list[dict[str, Any]]) -> None:
    assert [part["sharded"]["rows"] for part in ranks] == [11, 10]
    for part in ranks:
        whole, sharded = part["whole"], part["sharded"]
        assert torch.equal(sharded["loss"], whole["loss"])
        assert torch.equal(sharded["prior"], whole["prior"])
        assert sharded["grads"].keys() == whole["grads"].keys()
        for key, expected in whole["grads"].items():
            assert torch.equal(sharded["grads"][key], expected), key
    for mine, expected in zip(
        ranks[0]["sharded"]["memory"], ranks[0]["whole"]["memory"], strict=True
    ):
        assert torch.equal(mine, expected)
    # The comparison means something.
    memory, filled = ranks[0]["whole"]["memory"]
    assert filled.sum() == 11
    assert memory[20].norm() > 0.5
    assert ranks[0]["whole"]["prior"].std() > 0.01


def test_steps_equal_one_process_on_the_joined_batch(ranks: list[dict[str, Any]]) -> None:
    one = ranks[0]["one"]
    torch.testing.assert_close(ranks[0]["sharded"]["prior"], one["prior"])
    for mine, expected in zip(ranks[0]["sharded"]["memory"], one["memory"], strict=True):
        torch.testing.assert_close(mine, expected)


def test_one_process_may_ask_for_it_too(tmp_path: Path) -> None:
    plain, data = build(tiny_config(tmp_path))
    fit(plain, data, max_epochs=2)
    alone, data = build(tiny_config(tmp_path, method_kwargs__gh__memory_sharded=True))
    assert len(alone.gh_memory) == 0  # until the processes know of one another
    fit(alone, data, max_epochs=2)
    for key, value in plain.state_dict().items():
        assert torch.equal(alone.state_dict()[key], value), key


def test_checkpoint_holds_the_whole_memory(folder: Path, ranks: list[dict[str, Any]]) -> None:
    assert [part["rows"] for part in ranks] == [21, 20]
    whole, sharded = (load(folder / name / "last.ckpt") for name in ("whole", "sharded"))
    assert sharded["state_dict"]["gh_memory"].shape == (41, 5)
    assert sharded["state_dict"]["gh_memory_filled"].sum() >= 40
    assert whole["state_dict"].keys() == sharded["state_dict"].keys()
    for key, value in whole["state_dict"].items():
        assert torch.equal(sharded["state_dict"][key], value), key


def test_a_resumed_run_ends_as_the_unbroken_one(folder: Path) -> None:
    one, two = (load(folder / name / "last.ckpt") for name in ("sharded", "resumed"))
    assert one["global_step"] == two["global_step"]
    for key, value in one["state_dict"].items():
        assert torch.equal(two["state_dict"][key], value), key
    # It was resumed: the first epoch's file is not in its folder, and the memory has moved since.
    assert not (folder / "resumed/epoch=0.ckpt").exists()
    first = load(folder / "sharded/epoch=0.ckpt")["state_dict"]["gh_memory"]
    assert not torch.equal(first, one["state_dict"]["gh_memory"])


@pytest.mark.parametrize("sharded", [False, True])
def test_another_number_of_ranks_may_go_on(folder: Path, sharded: bool, tmp_path: Path) -> None:
    path = folder / "sharded/epoch=0.ckpt"
    seen = {}

    class Watch(pl.Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            seen.update({name: getattr(module, name).clone() for name in MEMORY})

    changes = {"method_kwargs__gh__memory_sharded": sharded, "optimizer__batch_size": 4}
    model, data = build(tiny_config(folder, output_dir=str(tmp_path), **changes))
    fit(model, data, max_epochs=2, callbacks=[Watch()], ckpt_path=path)
    for name in MEMORY:
        assert torch.equal(seen[name], load(path)["state_dict"][name])


def test_shards_of_every_type_are_joined(ranks: list[dict[str, Any]]) -> None:
    assert len(ranks[0]["joined"]) == 16
    assert all(ranks[0]["joined"].values())
    assert ranks[1]["joined"]["torch.float16 13"] == 6


def test_other_data_is_refused(folder: Path, tmp_path: Path) -> None:
    changes = {"method_kwargs__gh__memory_sharded": True}
    model, data = build(tiny_config(tmp_path, **changes))  # 42 images
    with pytest.raises(UserError, match="remembers 41 training images, this run has 42"):
        fit(model, data, ckpt_path=folder / "sharded/epoch=0.ckpt")
    with pytest.raises(UserError, match=r"gh\.memory_sharded: expected"):
        build(tiny_config(tmp_path, method_kwargs__gh__memory_sharded="half"))
