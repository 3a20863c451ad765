# SPDX-License-Identifier: MIT
"""GH in two gloo processes: equal to one process, untouched by DDP's broadcasts, whole runs.

A rank that hangs or dies fails its test: every group and every process here has a time limit.
"""

import datetime
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tests.kit.hosts import SIZE, loader, make_batch, tiny_cfg
from tests.kit.ranks import run_ranks
from tests.kit.runs import quiet_trainer
from tests.kit.tiny import tiny_config

WORLD, PER_RANK, IMAGES = 2, 4, 20
GH = {"num_directions": 5, "warmup": 0, "ramp": 0, "num_iters": 20}
BUFFERS = ("gh_memory", "gh_memory_filled", "gh_prior", "gh_prior_is_set")


def gh_method(**changes: Any) -> Any:
    os.environ["LTPLUGINS_HOST"] = "builtin"
    import ltplugins
    from ltplugins.host.builtin import METHODS

    ltplugins.register()
    torch.manual_seed(0)
    cfg = tiny_cfg("simclr", data__num_samples=IMAGES, method_kwargs__gh=GH, **changes)
    cfg.method = "gh_simclr"
    return METHODS["gh_simclr"](cfg)


def two_steps(rows: slice) -> dict[str, Any]:
    """Two steps on this rank's rows; the prior is recomputed in between.

    Linear maps for networks: BatchNorm would differ per rank by design.
    """
    model = gh_method()
    model.backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, model.features_dim))
    model.projector = nn.Linear(model.features_dim, 8)
    for seed in (0, 1):
        _, views, targets = make_batch(WORLD * PER_RANK, seed=seed)
        indexes = torch.tensor([[3, 1, 19, 7, 4, 12, 0, 9], [4, 3, 5, 6, 19, 8, 2, 11]][seed])
        model.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss = model.training_step([indexes[rows], [v[rows] for v in views], targets[rows]], 0)
        loss.backward()
        model.on_train_epoch_end()
    grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    state = {k: v.clone() for k, v in model.named_buffers() if k in BUFFERS}
    return {"loss": loss.detach(), "grads": grads, "state": state}


def ddp_ignores(rank: int, folder: Path) -> dict[str, Any]:
    """What Lightning's DDP leaves alone, and rank 1's memory after a step that would undo it."""
    seen: dict[str, Any] = {}

    class Look(pl.Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            ddp = trainer.strategy.model
            seen["ignored"] = sorted(ddp.parameters_to_ignore)
            seen["broadcast"] = {
                name
                for name, value in module.named_buffers()
                if any(value is other for other in ddp.modules_buffers)
            }
            # A mark on a row that no batch touches: a broadcast from rank 0 would wipe it out.
            module.gh_memory[IMAGES - 1] = float(rank)
            module.gh_etf.mul_(1 + rank)

        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            seen["mark"] = module.gh_memory[IMAGES - 1].mean().item()
            seen["etf"] = module.gh_etf.norm().item()

    trainer = quiet_trainer(
        devices=WORLD,
        strategy="ddp",
        max_steps=1,
        callbacks=[Look()],
        default_root_dir=folder,
        use_distributed_sampler=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(gh_method(max_epochs=1), loader())
    return seen


def on_rank(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=60),
    )
    results = two_steps(slice(rank * PER_RANK, (rank + 1) * PER_RANK))
    # Lightning uses the group that is there, and starts no process where LOCAL_RANK is set.
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511")
    results["ddp"] = ddp_ignores(rank, folder)
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(on_rank, WORLD, folder, timeout=120)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def test_two_ranks_equal_one_on_the_joined_batch(ranks: list[dict[str, Any]]) -> None:
    whole = two_steps(slice(None))
    mean = sum(part["loss"] for part in ranks) / WORLD
    torch.testing.assert_close(mean, whole["loss"], rtol=1e-5, atol=1e-5)
    for key, expected in whole["grads"].items():
        mean = sum(part["grads"][key] for part in ranks) / WORLD
        torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-5, msg=key)
    # The comparison means something: the prior is not uniform and GH's gradient is there.
    assert whole["state"]["gh_prior"].std() > 0.01
    assert whole["grads"]["backbone.1.weight"].abs().max() > 1e-3


def test_memory_and_prior_are_those_of_one_process(ranks: list[dict[str, Any]]) -> None:
    whole = two_steps(slice(None))["state"]
    assert whole["gh_memory_filled"].sum() == 13  # three images are in both batches
    for key, expected in whole.items():
        assert torch.equal(ranks[0]["state"][key], ranks[1]["state"][key]), key
        torch.testing.assert_close(ranks[0]["state"][key], expected, msg=key)


def test_ddp_leaves_the_memory_alone(ranks: list[dict[str, Any]]) -> None:
    for rank, part in enumerate(ranks):
        seen = part["ddp"]
        assert seen["ignored"] == ["gh_memory", "gh_memory_filled"]
        assert {"gh_prior", "gh_etf"} <= seen["broadcast"]
        assert not {"gh_memory", "gh_memory_filled"} & seen["broadcast"]
        assert seen["mark"] == rank
    # The watch can see a broadcast: the directions, marked likewise, are those of rank 0.
    assert ranks[0]["ddp"]["etf"] == pytest.approx(ranks[1]["ddp"]["etf"])


CLI = [sys.executable, "-m", "ltplugins.cli", "pretrain"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TORCHRUN += ["-m", "ltplugins.cli", "pretrain"]


def call(command: list[str], folder: Path, *changes: str) -> subprocess.Popen[str]:
    """Start a run of ``tiny.yaml`` by the command line, in a process group of its own."""
    arguments = [*command, "--config-path", str(folder), "--config-name", "tiny", *changes]
    env = {**os.environ, "LTPLUGINS_HOST": "builtin", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(arguments, env=env, start_new_session=True, **pipes)


def finish(process: subprocess.Popen[str], seconds: float = 150) -> tuple[int, str]:
    """Exit code and standard error; both ranks are killed after the time limit."""
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"still running after {seconds} s: {process.communicate()[1][-2000:]}")
    return process.returncode, errors


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tiny.yaml`` and the unbroken run of two processes in ``whole``."""
    folder = tmp_path_factory.mktemp("ddp")
    changes = {"devices": 2, "strategy": "ddp", "sync_batchnorm": True, "optimizer__batch_size": 4}
    cfg = tiny_config(folder, max_epochs=12, log_every_n_steps=1, **changes)
    OmegaConf.save(cfg, folder / "tiny.yaml")
    code, errors = finish(call(CLI, folder, f"output_dir={folder / 'whole'}"))
    assert code == 0, errors[-3000:]
    assert "sync_batchnorm needs a GPU" in errors
    assert errors.count("epoch 12/12") == 1  # said once, by the first process
    return folder


def last(path: Path) -> Any:
    return torch.load(path / "checkpoints/last.ckpt", map_location="cpu", weights_only=True)


@pytest.mark.slow
def test_a_whole_run_of_two_processes(whole: Path) -> None:
    run = whole / "whole"
    names = {p.name for p in run.iterdir()}
    assert names == {"config.yaml", "run.json", "metrics.csv", "checkpoints", ".lock"}
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"last.ckpt"}
    facts = json.loads((run / "run.json").read_text())
    assert facts["finished"]
    assert facts["identity"]["world_size"] == 2
    assert "pretrain" in facts["command"]
    rows = (run / "metrics.csv").read_text().splitlines()
    keys = [",".join(row.split(",")[:3]) for row in rows]
    assert len(keys) == len(set(keys))
    assert last(run)["global_step"] == 12 * (42 // 2 // 4)


@pytest.mark.slow
def test_a_killed_run_ends_as_the_unbroken_one(whole: Path) -> None:
    broken = whole / "broken"
    process = call(CLI, whole, f"output_dir={broken}")
    deadline = time.monotonic() + 120
    while not (broken / "checkpoints/last.ckpt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert 0 < last(broken)["epoch"] + 1 < 12
    code, errors = finish(call(CLI, whole, f"output_dir={broken}"))
    assert code == 0, errors[-3000:]
    assert "going on from" in errors
    one, two = last(whole / "whole"), last(broken)
    for key, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][key]), key
    assert (whole / "whole/metrics.csv").read_text() == (broken / "metrics.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", [CLI, TORCHRUN], ids=["lightning", "torchrun"])
def test_a_finished_run_ends_every_rank(command: list[str], whole: Path) -> None:
    before = (whole / "whole/checkpoints/last.ckpt").stat().st_mtime_ns
    code, errors = finish(call(command, whole, f"output_dir={whole / 'whole'}"), 60)
    assert code == 0, errors[-3000:]
    assert errors.count("is complete: nothing to train") == 1
    assert (whole / "whole/checkpoints/last.ckpt").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("command", [CLI, TORCHRUN], ids=["lightning", "torchrun"])
def test_a_refused_folder_ends_every_rank(command: list[str], whole: Path) -> None:
    """Every rank sees another config's run; foreign files the first, and that ends the rest."""
    code, errors = finish(call(command, whole, f"output_dir={whole / 'whole'}", "seed=9"), 60)
    assert code != 0
    assert "seed: 0 there, 9 here" in " ".join(errors.split())
    foreign = whole / "foreign"
    foreign.mkdir(exist_ok=True)
    (foreign / "thesis.tex").write_text("years of work")
    code, errors = finish(call(command, whole, f"output_dir={foreign}"), 60)
    assert code != 0
    assert "not empty and holds no run" in " ".join(errors.split())
    assert [p.name for p in foreign.iterdir() if p.name != ".lock"] == ["thesis.tex"]
