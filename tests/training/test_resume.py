# SPDX-License-Identifier: MIT
"""``resume_from_checkpoint``: another run's weights and state, this config's rates and length."""

import csv

import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.pretrain import pretrain
from tests.kit.runs import interrupted, load
from tests.kit.tiny import tiny_config


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("first")
    return pretrain(tiny_config(folder, "simclr", max_epochs=2))


def longer(first, **changes):
    """A config that goes on from it, to three epochs, in a folder beside it."""
    given = {"resume_from_checkpoint": str(first), "max_epochs": 3, **changes}
    given = {"output_dir": str(first.parent / "second"), **given}
    return tiny_config(first.parent, **{"method": "simclr", **given})


def rates(run):
    with open(run / "metrics.csv", newline="", encoding="utf-8") as f:
        rows = [row for row in csv.DictReader(f) if row["metric"] == "lr-SGD/backbone"]
    return [float(row["value"]) for row in rows]


def test_the_rates_are_those_of_the_new_config_all_along(first, tmp_path):
    whole = pretrain(tiny_config(first.parent, "simclr", max_epochs=4, optimizer__lr=0.002,
                                 output_dir=str(tmp_path / "whole")))  # fmt: skip
    run = pretrain(longer(first, max_epochs=4, optimizer__lr=0.002, output_dir=str(tmp_path / "a")))
    assert rates(run) == rates(whole)[2:]
    assert all(0 < rate <= 0.002 * 8 / 256 for rate in rates(run))
    one, two = load(whole / "checkpoints/last.ckpt"), load(run / "checkpoints/last.ckpt")
    assert one["epoch"] == two["epoch"] == 3
    assert one["global_step"] == two["global_step"]
    assert one["lr_schedulers"] == two["lr_schedulers"]


def test_the_optimisers_state_goes_on_and_where_it_came_from_is_kept(first, tmp_path, monkeypatch):
    cfg = longer(first, output_dir=str(tmp_path / "run"), optimizer__kwargs={"momentum": 0.5})
    interrupted(cfg, 2, 0, monkeypatch)  # before its first step
    facts = RunFolder(tmp_path / "run").read()
    assert facts.resumed_from.run == str(first / "checkpoints/last.ckpt")
    assert facts.resumed_from.epochs == 2
    assert facts.identity["resumed_from"] == facts.resumed_from.weights
    end = load(pretrain(cfg) / "checkpoints/last.ckpt")
    assert end["optimizer_states"][0]["param_groups"][0]["momentum"] == 0.5


def speed(run):
    return load(run / "checkpoints/last.ckpt")["callbacks"]["Speed"]


@pytest.mark.parametrize("bar", [True, False])
def test_a_run_that_goes_on_counts_on(bar, tmp_path, monkeypatch):
    """Time and images are the whole run's, whether they are shown or not."""
    given = {"max_epochs": 3, "enable_progress_bar": bar}
    whole = pretrain(tiny_config(tmp_path, "simclr", output_dir=str(tmp_path / "whole"), **given))
    cfg = tiny_config(tmp_path, "simclr", **given)
    interrupted(cfg, 2, 0, monkeypatch)
    before = speed(tmp_path / "run")
    run = pretrain(cfg)
    after, facts = speed(run), RunFolder(run).read()
    assert 0 < before["images"] < after["images"] == speed(whole)["images"]
    steps = before["elapsed"] + after["seconds"] - before["seconds"]
    assert facts.seconds + 0.05 >= steps  # rounded
    assert facts.images_per_second == pytest.approx(after["images"] / after["seconds"], abs=0.06)


def test_the_time_of_another_run_is_not_this_ones(first, tmp_path):
    run = pretrain(longer(first, output_dir=str(tmp_path / "run")))
    assert 2 * speed(run)["images"] == speed(first)["images"]


def test_it_goes_on_from_its_own_checkpoint_once_it_has_one(first, tmp_path, monkeypatch):
    changes = {"max_epochs": 4, "output_dir": str(tmp_path / "whole")}
    whole = pretrain(longer(first, **changes))
    cfg = longer(first, **{**changes, "output_dir": str(tmp_path / "broken")})
    interrupted(cfg, 3, 1, monkeypatch)
    own = load(tmp_path / "broken/checkpoints/last.ckpt")
    assert own["epoch"] == 2
    broken = load(pretrain(cfg) / "checkpoints/last.ckpt")
    for key, value in load(whole / "checkpoints/last.ckpt")["state_dict"].items():
        assert torch.equal(value, broken["state_dict"][key]), key


def test_what_cannot_be_gone_on_from_is_refused_before_a_folder(first, tmp_path):
    weights, other = tmp_path / "weights.pth", tmp_path / "other.ckpt"
    torch.save({"conv1.weight": torch.zeros(2)}, weights)
    content = load(first / "checkpoints/last.ckpt")
    torch.save({"state_dict": content["state_dict"], "epoch": 1}, other)
    (tmp_path / "empty").mkdir()
    for changes, text in (
        ({"resume_from_checkpoint": str(weights)}, "no state_dict. Give a checkpoint that a run"),
        ({"resume_from_checkpoint": str(other)}, "holds weights alone"),
        ({"resume_from_checkpoint": str(tmp_path / "gone.ckpt")}, "does not exist"),
        ({"resume_from_checkpoint": str(tmp_path / "empty")}, "holds no run"),
        ({"max_epochs": 2}, "max_epochs: expected more than the 2 epochs"),
        ({"method": "supcon"}, "has method 'simclr', and the config says 'supcon'"),
        ({"optimizer__name": "adamw", "optimizer__kwargs": {}}, "optimizer.name=sgd"),
        ({"method_kwargs__proj_hidden_dim": 12}, "does not fit this method and network"),
    ):
        folder = tmp_path / "refused"
        with pytest.raises(UserError) as error:
            pretrain(longer(first, output_dir=str(folder), **changes))
        assert text in str(error.value)
        assert not folder.exists()


def test_the_key_of_lightning_is_the_same_key(first, tmp_path):
    cfg = longer(first, output_dir=str(tmp_path / "run"))
    cfg.ckpt_path = cfg.pop("resume_from_checkpoint")
    assert load(pretrain(cfg) / "checkpoints/last.ckpt")["epoch"] == 2
    cfg.resume_from_checkpoint = "elsewhere"
    with pytest.raises(UserError, match="ckpt_path and resume_from_checkpoint"):
        pretrain(cfg)
