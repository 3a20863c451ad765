# SPDX-License-Identifier: MIT
"""Composing a command line: keys that exist need no "+", typing errors get the nearest name."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from ltplugins.stages.blocks import config_blocks, run_keys
from ltplugins.stages.command import PACKAGED, read_command
from ltplugins.stages.compose import Composer, compose_packaged
from tests.kit.paths import ROOT


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(PACKAGED, "pretrain", run_keys)


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["enable_progress_bar=false"], "enable_progress_bar", False),
        (["strategy=ddp"], "strategy", "ddp"),
        (["accelerator=cpu"], "accelerator", "cpu"),
        (["data.sampler=id_plus_ood", "data.ood.dataset=emoji_pack"], "data.ood.dataset", ...),
        (["method=gh_simclr", "method_kwargs.gh.num_iters=50"], "method_kwargs.gh.num_iters", 50),
        (["method=gml", "method_kwargs.queue_size=128"], "method_kwargs.queue_size", 128),
        (["augmentations.0.randaugment.prob=0.2"], "augmentations.0.randaugment.prob", 0.2),
        (["+seed=3"], "seed", 3),
        (["++seed=3"], "seed", 3),
        (["+optimizer.kwargs.nesterov=true"], "optimizer.kwargs.nesterov", True),
        (["optimizer.kwargs.momentum=0.5"], "optimizer.kwargs.momentum", 0.5),
        (["+eval=default"], "eval.knn.temperature", 0.07),
        (["output_dir=${hydra:runtime.cwd}/x"], "output_dir", f"{Path.cwd()}/x"),
        (["name='a=b'"], "name", "a=b"),
        (["data.imbalance={factor: 10}"], "data.imbalance.factor", 10),
    ],
)
def test_what_needs_no_plus(words, key, value, composer):
    cfg = composer.compose(words)
    resolve(cfg, config_blocks)
    found = OmegaConf.select(cfg, key)
    assert found is not None if value is ... else found == value


def test_a_tilde_takes_a_key_away(composer):
    assert "dali" not in composer.compose(["~dali"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["method=gh_simcl"], r"^unknown method 'gh_simcl'. Did you mean 'gh_simclr'\? Valid: "),
        (["data=fashion_pak"], r"^unknown data 'fashion_pak'. Did you mean 'fashion_pack'\? Valid"),
        (["augmentations=smal"], r"^unknown augmentations 'smal'. Did you mean 'small'\?"),
        (["schedule=cifr"], r"^unknown schedule 'cifr'. Did you mean 'cifar'\?"),
        (["eval=defalt"], r"^unknown eval 'defalt'. Did you mean 'default'\?"),
        (
            ["optimizer.kwargs.momentun=1"],
            r"^unknown key 'optimizer.kwargs.momentun'. Did you mean 'momentum'\? .*"
            r"A key that it does not list: \+optimizer.kwargs.momentun=1$",
        ),
        (["backbone.kwargs.depth=1"], r"unknown key 'backbone.kwargs.depth'.*has: nothing"),
        (["~sed"], r"^unknown key 'sed'. Did you mean 'seed'\?"),
        (["seed"], "^cannot read 'seed': expected key=value"),
        (["output_dir=a b,(c"], "quotes of its own: \"output_dir='a b,\\(c'\""),
        (["seed=1,2"], "^seed=1,2: several values are for --multirun"),
        (["method=simclr,byol"], "^method=simclr,byol: several values are for --multirun"),
        (["=3"], "^cannot read '=3': expected key=value, and there is no key"),
        (["seed=${nothing}"], "Interpolation key 'nothing' not found"),
        (["augmentations.7.crop_size=3"], r"augmentations.7.crop_size=3"),
    ],
)
def test_a_word_that_is_wrong_is_told_in_one_line(words, text, composer):
    with pytest.raises(UserError, match=text) as error:
        composer.compose(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["optimzer.lr=1"], r"unknown key 'optimzer'. Did you mean 'optimizer'\?"),
        (["+optimizer.lrr=1"], r"unknown key 'optimizer.lrr'. Did you mean 'lr'\?"),
        (["enable_progres_bar=false"], r"Did you mean 'enable_progress_bar'\?"),
        (["seed.x=3"], "seed: expected"),
        (["method_kwargs.temprature=1"], r"temprature'. Did you mean 'temperature'\?"),
        (["method_kwargs.gh.weight=1"], "unknown key 'method_kwargs.gh'"),
        (
            ["method=gh_simclr", "method_kwargs.gh.temprature=1"],
            r"unknown key 'method_kwargs.gh.temprature'. Did you mean 'temperature'\?",
        ),
        (["data.engine=batchd"], r"data.engine: expected one of .*Did you mean 'batched'\?"),
        (["data=fashion_pack", "data={enginee: dali}"], r"unknown key 'data.enginee'"),
    ],
)
def test_keys_of_typed_blocks_are_left_to_their_parser(words, text, composer):
    cfg = composer.compose(words)
    with pytest.raises(UserError, match=text):
        resolve(cfg, config_blocks)


def test_a_set_takes_its_own_views_and_schedule_along(composer):
    cfg = composer.compose(["data=land", "data.tile=48"])
    assert [block.crop_size for block in cfg.augmentations] == [48]
    assert cfg.augmentations[0].quarter_turn.prob == 0.5
    chosen = composer.compose(["data=land", "augmentations=small", "schedule=cifar"])
    assert "quarter_turn" not in chosen.augmentations[0] and chosen.max_epochs == 1000
    other = composer.compose(["data=cifar10_lt"])
    assert other.augmentations == composer.compose([]).augmentations


def test_a_file_that_chooses_from_no_such_group():
    folder = str(ROOT / "scripts/pretrain/fashion")
    cfg = Composer(folder, "simclr.yaml", run_keys).compose(["eval.knn.k=5"])
    assert cfg.eval.knn.k == 5


def test_a_file_of_ones_own(tmp_path):
    """Without groups ``method`` is a key, with them and no defaults list a choice."""
    (tmp_path / "plain.yaml").write_text("method: simclr\n")
    search = "hydra: {searchpath: [pkg://ltplugins.conf]}\nmethod: simclr\n"
    (tmp_path / "search.yaml").write_text(search)
    plain, searched = (Composer(str(tmp_path), n, run_keys) for n in ("plain", "search"))
    assert plain.compose(["method=gh_simclr", "data.dataset=x"]).method == "gh_simclr"
    assert "gh" in searched.compose(["method=gh_simclr"]).method_kwargs


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("simclrr", None, r"no simclrr.yaml in .*Did you mean 'simclr'\? Files there: simclr\."),
        ("simclr", "a: [1\nb: 2", r"^simclr cannot be read as YAML: .*line 2"),
        (
            "simclr",
            "hydra: {searchpath: [pkg://ltplugins.conf]}\ndefaults: [_self_, method: simcrl]",
            r"^unknown method 'simcrl'. Did you mean 'simclr'\?",
        ),
    ],
)
def test_a_file_that_is_wrong(name, content, text, tmp_path):
    (tmp_path / "simclr.yaml").write_text(content or "method: simclr\n")
    with pytest.raises(UserError, match=text) as error:
        Composer(str(tmp_path), name, run_keys).compose([])
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there():
    with pytest.raises(UserError, match=r"^--config-path: /nowhere is no folder."):
        Composer("/nowhere", "simclr")


def test_without_types_a_new_key_needs_its_plus():
    assert compose_packaged("evaluate", ["eval.knn.k=3", "+mine=1"]).mine == 1
    with pytest.raises(UserError, match=r"unknown key 'devic'. Did you mean 'device'\?"):
        compose_packaged("evaluate", ["devic=cpu"])


def test_a_command_line_taken_apart():
    line = ["a=1", "--config-path", "x", "-cn", "b", "~c", "--multirun"]
    command = read_command(line, "pretrain")
    assert command.config_path == str(Path("x").resolve())
    assert (command.config_name, command.words, command.multirun) == ("b", ("a=1", "~c"), True)
    assert read_command(["--cfg", "job"], "pretrain").flags == ("--cfg",)
    with pytest.raises(UserError, match="unrecognized arguments: --confg-path"):
        read_command(["--confg-path", "x"], "pretrain")
