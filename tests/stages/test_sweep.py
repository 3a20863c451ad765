# SPDX-License-Identifier: MIT
"""The plan of a multirun: members, folder names, rows, and what is refused before work starts."""

from pathlib import Path

import pytest

from ltplugins.core.errors import UserError
from ltplugins.stages.sweep import is_multirun, plan
from tests.kit.paths import ROOT

FASHION = str(ROOT / "scripts/pretrain/fashion")
FILES = ["--config-path", FASHION, "--config-name"]


def members(*arguments: str):
    return plan(["--multirun", *arguments], "pretrain").members


def test_every_combination_has_a_readable_folder_and_the_methods_row():
    sweep = plan(["-m", "method=simclr,gh_simclr", "seed=0,1,2", "max_epochs=2"], "pretrain")
    assert [m.name for m in sweep.members] == [
        *(f"simclr,seed={i}" for i in range(3)),
        *(f"gh_simclr,seed={i}" for i in range(3)),
    ]
    assert [m.row for m in sweep.members] == ["simclr"] * 3 + ["gh_simclr"] * 3
    assert [m.cfg.seed for m in sweep.members] == [0, 1, 2] * 2
    assert {m.cfg.max_epochs for m in sweep.members} == {2}
    assert sweep.folder == Path("runs/sweep/fashion")
    assert plan(["-m", "seed=0,1", "output_dir='/x/a=b'"], "pretrain").folder == Path("/x/a=b")
    assert sweep.members[0].arguments(Path("/x")) == [
        *("--config-path", "pkg://ltplugins.conf", "--config-name", "pretrain"),
        *("method=simclr", "seed=0", "max_epochs=2", "output_dir='/x/simclr,seed=0'"),
    ]


def test_an_option_that_follows_another_is_no_choice_of_its_own():
    found = members("seed=1,2", "data.imbalance.class_order=${seed}")
    assert [(m.cfg.seed, m.cfg.data.imbalance.class_order) for m in found] == [(1, 1), (2, 2)]
    assert [m.name for m in found] == ["simclr,seed=1", "simclr,seed=2"]
    # Without the interpolation there are four, of one row all the same.
    found = members("seed=1,2", "data.imbalance.class_order=3,4")
    assert [m.name for m in found][1] == "simclr,seed=1,class_order=4"
    assert {m.row for m in found} == {"simclr"}


def test_other_keys_make_rows_of_their_own():
    found = members("method=gh_simclr", "method_kwargs.gh.weight=0.5,1", "seed=range(0,2)")
    assert [m.row for m in found] == ["gh_simclr, weight=0.5"] * 2 + ["gh_simclr, weight=1"] * 2
    found = members("optimizer.name=sgd,lars", "backbone.name=test_resnet,resnet18")
    assert found[0].name == "simclr,optimizer.name=sgd,backbone.name=test_resnet"


def test_files_bring_settings_of_their_own():
    """What a comparison of methods types: a file per method, seeds for all of them."""
    found = members(*FILES, "simclr,mttv", "seed=0,1", "max_epochs=3")
    assert [m.name for m in found] == [f"{n},seed={s}" for n in ("simclr", "mttv") for s in (0, 1)]
    assert [m.cfg.data.sampler.name for m in found] == ["shuffle"] * 2 + ["paired"] * 2
    assert [len(m.cfg.augmentations) for m in found] == [1, 1, 2, 2]
    assert {m.config_path for m in found} == {FASHION}
    # Two files of one method are two rows: the file says which.
    assert [m.row for m in members(*FILES, "simclr.yaml,gh_simclr", "seed=0,1")][::2] == [
        "simclr",
        "gh_simclr",
    ]


def test_launcher_overrides_go_to_hydra():
    sweep = plan(["-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "pretrain")
    assert sweep.launcher == ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert all(not w.startswith("hydra") for m in sweep.members for w in m.overrides)


def test_names_need_no_quotes_in_a_shell():
    found = members("method=simclr", "+data.train_path='a b/c.npz','d=e.npz'")
    assert [m.name for m in found] == ["simclr,train_path=a_b_c.npz", "simclr,train_path=d_e.npz"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["seed=0", "method=simclr"], r"none is given.*seed=choice\(0\)"),
        (["method=simclr,gh_simclir"], r"gh_simclir.*Nothing was trained"),
        (["seed=0,1", "optimizer.lrr=3"], r"pretrain seed=0 optimizer.lrr=3: .*lrr"),
        (["seed=0,1", "+optimizer.lrr=3"], r"unknown key 'optimizer.lrr'. Did you mean 'lr'"),
        (["seed=0,0"], r"two members of the sweep are called 'simclr,seed=0'"),
        (["seed=0,1", "output_dir=a,b"], "output_dir is the folder of the whole sweep"),
        (["seed=0,1", "hydra/sweeper=optuna"], "hydra/sweeper: --multirun trains every"),
        (["seed=0,1", "--cfg", "job"], "--cfg does not go with --multirun"),
        (["optimizer.lr=interval(0,1)"], "an interval has no list of values"),
        (["seed=0,1", "method"], "method"),
        (["--config-path", "/nowhere", "seed=0,1"], "/nowhere is no folder"),
        (["seed=0,1", "checkpoint.enabled=false"], "a sweep evaluates what it trains"),
        ([*FILES, "simclr,nothing"], "nothing.*Nothing was trained"),
    ],
)
def test_what_makes_no_sweep_is_refused(arguments, text):
    with pytest.raises(UserError, match=text):
        members(*arguments)


def test_multirun_is_recognised():
    assert is_multirun(["method=a,b", "-m"])
    assert is_multirun(["--multirun"])
    assert not is_multirun(["method=-m"])
