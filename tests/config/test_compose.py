# SPDX-License-Identifier: MIT
"""Every YAML under scripts/ and in the package composes, and its sections are valid."""

import dataclasses
import functools
import json

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import OmegaConf

from ltplugins.config.resolve import resolve
from ltplugins.core.schema import parse
from ltplugins.downstream.options import FinetuneConfig
from ltplugins.eval.options import EvalConfig
from ltplugins.host.facts import configured_bases, packaged_bases
from ltplugins.methods.describe import options_of, packaged_block
from ltplugins.methods.registry import METHODS as OURS
from ltplugins.methods.registry import WRAPPERS, compositions, option_classes
from tests.kit.paths import ROOT

SCRIPTS = sorted((ROOT / "scripts/pretrain").rglob("*.yaml"))
FINETUNE = sorted((ROOT / "scripts/finetune").glob("*.yaml"))
FILES = sorted(p.stem for p in (ROOT / "ltplugins/conf/method").glob("*.yaml"))
# A wrapper's file is a block only.
ALL = [name for name in [*FILES, *compositions()] if name not in WRAPPERS]
# Of the bases that only solo-learn has, alone and as one composition: they differ in values alone.
ONLY_SOLO = [base for base in configured_bases() if base not in packaged_bases()]
METHODS = [
    name
    for name in ALL
    if not name.endswith(tuple(f"_{base}" for base in ONLY_SOLO)) or name.startswith("gh_colt_")
]
# What `method=NAME` composed to when every composition was a file: the sections that are not
# those of `method=simclr`. Never to be written anew from what composes today.
AS_FILES = json.loads((ROOT / "tests/config/compositions.json").read_text())


def check(cfg):
    cfg = resolve(cfg).host
    parse(EvalConfig, OmegaConf.to_container(cfg.eval), "eval")
    for path, options in option_classes(cfg.method).items():
        block = OmegaConf.select(cfg, path)
        assert block is not None, f"{cfg.method} lacks {path}"
        parse(options, OmegaConf.to_container(block), path)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_script_composes(path):
    with initialize_config_dir(str(path.parent), version_base="1.2"):
        check(compose(path.stem))
    values = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(values) <= 15


@pytest.mark.parametrize("path", FINETUNE, ids=lambda p: p.stem)
def test_fine_tuning_composes(path):
    with initialize_config_dir(str(path.parent), version_base="1.2"):
        plain = OmegaConf.to_container(compose(path.stem))
    options = parse(FinetuneConfig, plain, "")
    with initialize_config_module("ltplugins.conf", version_base="1.2"):
        packaged = OmegaConf.to_container(compose("finetune"))
    # The file's values are the types' own defaults, to the last.
    assert parse(FinetuneConfig, packaged, "") == FinetuneConfig() != options
    assert {field.name for field in dataclasses.fields(FinetuneConfig)} == set(packaged)


@pytest.mark.parametrize("method", METHODS)
def test_packaged_default_composes_with_every_method(method):
    with initialize_config_module("ltplugins.conf", version_base="1.2"):
        cfg = compose("pretrain", [f"method={method}"])
    assert cfg.method == method
    for wrapper in WRAPPERS:
        assert (wrapper in cfg.method_kwargs) == (wrapper in method.split("_")[:-1])
    assert ("ood" in cfg.data) == ("colt_" in method)
    check(cfg)


@functools.cache
def of_simclr():
    with initialize_config_module("ltplugins.conf", version_base="1.2"):
        return OmegaConf.to_container(compose("pretrain"), resolve=True)


def filled(cfg):
    """A composed config with the defaults that its method's dataclasses add."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    for block in plain["augmentations"]:
        block.pop("grey", None)  # a key that blocks did not have then
    for path, options in option_classes(cfg.method).items():
        name = path.rpartition(".")[2]
        block = plain["method_kwargs"][name]
        plain["method_kwargs"][name] = dataclasses.asdict(parse(options, block, path))
    return plain


@pytest.mark.parametrize("method", AS_FILES)
def test_a_composition_is_what_it_was_as_a_file(method):
    with initialize_config_module("ltplugins.conf", version_base="1.2"):
        now = compose("pretrain", [f"method={method}"])
    expected = OmegaConf.create({**of_simclr(), **AS_FILES[method]})
    assert filled(now) == filled(expected)


@pytest.mark.parametrize("name", [*WRAPPERS, *OURS, *packaged_bases()])
def test_a_default_stands_once(name):
    """A packaged file holds what differs from the dataclass and nothing else."""
    same = [o.key for o in options_of(name) if o.key in packaged_block(name) and not o.packaged]
    assert not same, f"conf/method/{name}.yaml repeats the default of {', '.join(same)}"


def test_every_composition_is_there_and_none_is_a_file():
    assert len(AS_FILES) == 42
    assert set(AS_FILES) <= set(compositions())
    assert not set(FILES) & set(compositions())
    assert "ts_byol" not in compositions()  # no temperature
    assert {"gh_colt_byol", "bcl_sdclr_vicreg", "gh_nnclr", "gh_sdclr_swav"} <= set(compositions())
    assert "gh_mae" not in compositions()  # no z


def test_a_folder_of_ones_own_finds_the_compositions(tmp_path):
    head = "hydra: {searchpath: [pkg://ltplugins.conf]}\ndefaults:\n  - pretrain\n"
    (tmp_path / "mine.yaml").write_text(f"{head}  - override method: gh_byol\n  - _self_\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        assert compose("mine").method == "gh_byol"
        assert compose("mine", ["method=bcl_sdclr_byol"]).method_kwargs.bcl.variant == "D"


def test_where_our_folder_is_not_searched_method_is_a_plain_key(tmp_path):
    """As in solo-learn's files, also after our own have been composed in the same process."""
    with initialize_config_module("ltplugins.conf", version_base="1.2"):
        assert compose("pretrain", ["method=gh_simclr"]).method == "gh_simclr"
    (tmp_path / "theirs.yaml").write_text("method: simclr\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        assert compose("theirs", ["method=gh_simclr"]).method == "gh_simclr"


def test_the_nodes_are_listed_beside_the_files():
    from hydra._internal.core_plugins.importlib_resources_config_source import (
        ImportlibResourcesConfigSource,
    )

    source = ImportlibResourcesConfigSource("test", "pkg://ltplugins.conf")
    assert set(source.list("method", None)) == {*FILES, *compositions()}
    assert "method" in source.list("", None)


def test_there_is_a_file_for_every_base_wrapper_and_method():
    assert len(SCRIPTS) >= 4
    assert set(FILES) == {*configured_bases(), *WRAPPERS, *OURS}
