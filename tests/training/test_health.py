# SPDX-License-Identifier: MIT
"""Health while training: what is logged, that nothing that trains is touched, and the alarm."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.metrics.health import alignment, rankme, uniformity
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import pretrain
from ltplugins.training.health import HealthWatch
from tests.kit.hosts import HOSTS, Batches, host_methods, make_cfg, tiny_cfg
from tests.kit.ranks import as_launched, join_ranks, run_ranks
from tests.kit.runs import assert_same_run, interrupted, quiet_trainer
from tests.kit.tiny import tiny_config

NAMES = {"rankme", "uniformity", "dead", "alignment", "classifier_etf"}


def health(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    curves = read_metrics(path / "metrics.csv")
    start = "health_"
    return {k.removeprefix(start): v for k, v in curves.items() if k.startswith(start)}


def test_every_second_epoch_and_the_last_one(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, "gh_simclr", health={"every": 2, "images": 20})
    found = health(pretrain(cfg))
    assert set(found) == NAMES
    for steps, values in found.values():
        assert steps == [9, 14]  # of 5 an epoch: after the second and the third
        assert all(map(math.isfinite, values))
    assert all(1 <= value <= 24 for value in found["rankme"][1])


def test_nothing_that_trains_is_touched(tmp_path: Path) -> None:
    """Weights, BatchNorm statistics and what else is logged are those of a run without it."""
    paths = {}
    for on in (True, False):
        cfg = tiny_config(tmp_path, "byol", health=on, output_dir=str(tmp_path / f"run{on}"))
        paths[on] = pretrain(cfg)
    states = [torch.load(p / "checkpoints/last.ckpt", weights_only=True) for p in paths.values()]
    for key, value in states[1]["state_dict"].items():
        assert torch.equal(states[0]["state_dict"][key], value), key
    assert not health(paths[False])
    plain = read_metrics(paths[False] / "metrics.csv")
    assert plain.items() <= read_metrics(paths[True] / "metrics.csv").items()


def test_a_run_goes_on_with_or_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny_config(tmp_path, "simclr", health=True, output_dir=str(tmp_path / "whole"))
    pretrain(whole)
    broken = tiny_config(tmp_path, "simclr", health=True)
    interrupted(broken, 1, 3, monkeypatch)
    assert_same_run(tmp_path / "whole", pretrain(broken))
    off = tiny_config(tmp_path, "simclr", health=False)
    assert pretrain(off) == tmp_path / "run"  # the same run: it is over


class Constant(torch.nn.Module):
    """A backbone that says one thing of all images."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale.expand(len(x), -1) + 1e-4 * x.flatten(1).mean(1, keepdim=True)


def fit(model: Any, watch: HealthWatch, data: Any, **kwargs: Any) -> dict[str, float]:
    trainer = quiet_trainer(max_epochs=2, callbacks=[watch], **kwargs)
    trainer.fit(model, data)
    return {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("health_")}


def loader(start: int = 0, stop: int = 16, size: int = 4) -> Any:
    part = torch.utils.data.Subset(Batches(16, True), range(start, stop))
    return torch.utils.data.DataLoader(part, batch_size=size)


def still(method: Any, cfg: Any) -> Any:
    """A model that does not move while it trains: what was collected can be made again."""
    torch.manual_seed(0)
    model = method(cfg)
    model.lr = model.classifier_lr = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    return model


def of_the_stand_in() -> Any:
    return still(
        host_methods("builtin")["simclr"],
        tiny_cfg("simclr", max_epochs=2, scheduler__name="none"),
    )


def on_rank(rank: int, world: int, folder: Path) -> dict[str, Any]:
    join_ranks(rank, world, folder)
    as_launched(rank, world)
    # Rank 0 has nine images of the sixteen, rank 1 seven, in two batches each.
    data = loader(0, 9, 5) if rank == 0 else loader(9, 16, 4)
    settings = {"devices": world, "strategy": "ddp", "default_root_dir": folder}
    return fit(of_the_stand_in(), HealthWatch(images=16), data, **settings)


def test_two_ranks_measure_what_one_would(tmp_path: Path) -> None:
    ranks = run_ranks(on_rank, 2, tmp_path)
    whole = fit(of_the_stand_in(), HealthWatch(images=16), loader())
    half = fit(of_the_stand_in(), HealthWatch(images=16), loader(0, 9, 5))
    assert ranks[0] == ranks[1]
    assert set(whole) == {f"health_{name}" for name in NAMES}
    for name, value in whole.items():
        assert ranks[0][name] == pytest.approx(value, rel=1e-4), name
    assert half["health_rankme"] != pytest.approx(whole["health_rankme"], rel=1e-2)


@pytest.mark.parametrize("host", HOSTS)
def test_the_numbers_are_those_of_the_last_batches(host: str) -> None:
    if host == "solo":
        from ltplugins.host.solo import apply_fixes

        apply_fixes()
    make = tiny_cfg if host == "builtin" else make_cfg
    model = still(
        host_methods(host)["simclr"], make("simclr", max_epochs=2, scheduler__name="none")
    )
    logged = fit(model, HealthWatch(images=8), loader())
    model.eval()
    views = [[batch[1][v] for batch in list(loader())[-2:]] for v in (0, 1)]
    with torch.no_grad():
        one, two = (torch.cat([model.backbone(x).flatten(1) for x in part]) for part in views)
    assert len(one) == 8
    assert logged["health_alignment"] == pytest.approx(alignment(one, two), rel=1e-3)
    assert logged["health_uniformity"] == pytest.approx(uniformity(one), rel=1e-3)
    assert logged["health_rankme"] == pytest.approx(rankme(one), rel=1e-3)


def test_collapse_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    model: Any = host_methods("builtin")["simclr"](tiny_cfg("simclr", max_epochs=2))
    model.backbone = Constant(model.features_dim)
    with caplog.at_level(logging.WARNING, logger="ltplugins"):
        logged = fit(model, HealthWatch(), loader())
    said = [r.getMessage() for r in caplog.records if "health" in r.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("health after epoch 1: the features of all images point one way")
    assert logged["health_uniformity"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("every", "images"), [(0, 8), (1, 1)])
def test_wrong_values_are_one_line(every: int, images: int) -> None:
    with pytest.raises(UserError, match="health: expected every of 1 or more epochs and 2 or more"):
        HealthWatch(every, images)


def test_as_a_block_of_callbacks(tmp_path: Path) -> None:
    block = {"_target_": "ltplugins.training.health.HealthWatch", "images": 16}
    cfg = tiny_config(tmp_path, "simclr", max_epochs=1, callbacks=[block])
    assert set(health(pretrain(cfg))) == NAMES
