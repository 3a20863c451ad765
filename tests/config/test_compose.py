# SPDX-License-Identifier: MIT
"""Every YAML under scripts/ and in the package composes, and its sections are valid."""

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import OmegaConf

from ltplugins.config.resolve import resolve
from ltplugins.core.schema import parse
from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.imbalance import ImbalanceConfig
from ltplugins.data.schema import OODConfig
from ltplugins.eval.protocol import EvalConfig
from ltplugins.methods.registry import WRAPPERS, option_classes
from tests.kit.paths import ROOT

SCRIPTS = sorted((ROOT / "scripts").rglob("*.yaml"))
METHODS = sorted(p.stem for p in (ROOT / "ltplugins/conf/method").glob("*.yaml"))
METHODS = [name for name in METHODS if name not in WRAPPERS]  # a wrapper's file is a block only


def check(cfg):
    cfg = resolve(cfg)
    parse_augmentations(OmegaConf.to_container(cfg.augmentations))
    parse(ImbalanceConfig, cfg.data.get("imbalance"), "data.imbalance")
    parse(EvalConfig, OmegaConf.to_container(cfg.eval), "eval")
    for path, options in option_classes(cfg.method).items():
        block = OmegaConf.select(cfg, path)
        assert block is not None, f"{cfg.method} lacks {path}"
        parse(options, OmegaConf.to_container(block), path)
    if cfg.data.get("ood") is not None:
        parse(OODConfig, cfg.data.ood, "data.ood")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_script_composes(path):
    with initialize_config_dir(str(path.parent), version_base="1.2"):
        check(compose(path.stem))
    assert len(path.read_text().splitlines()) <= 15


@pytest.mark.parametrize("method", METHODS)
def test_packaged_default_composes_with_every_method(method):
    with initialize_config_module("ltplugins.conf", version_base="1.2"):
        cfg = compose("pretrain", [f"method={method}"])
    assert cfg.method == method
    for wrapper in WRAPPERS:
        assert (wrapper in cfg.method_kwargs) == (wrapper in method.split("_")[:-1])
    assert ("ood" in cfg.data) == ("colt_" in method)
    check(cfg)


def test_there_are_scripts_and_methods():
    assert len(SCRIPTS) >= 4
    assert {"simclr", "gh_simclr", "gh_byol", "colt_simclr", "gh_colt_simclr"} <= set(METHODS)
