# SPDX-License-Identifier: MIT
"""Every YAML under scripts/ and in the package composes, and its sections are valid."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import OmegaConf

from ltplugins.config import resolve
from ltplugins.data.augmentations import parse_augmentations
from ltplugins.data.imbalance import ImbalanceConfig
from ltplugins.data.ood import OODConfig
from ltplugins.eval.protocol import EvalConfig
from ltplugins.methods.colt import COLTConfig
from ltplugins.methods.gh import GHConfig
from ltplugins.methods.registry import WRAPPERS
from ltplugins.schema import parse

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "scripts").rglob("*.yaml"))
METHODS = sorted(
    p.stem for p in (ROOT / "ltplugins/conf/method").glob("*.yaml") if p.stem not in WRAPPERS
)


def check(cfg):
    cfg = resolve(cfg)
    parse_augmentations(OmegaConf.to_container(cfg.augmentations))
    parse(ImbalanceConfig, cfg.data.get("imbalance"), "data.imbalance")
    parse(EvalConfig, OmegaConf.to_container(cfg.eval), "eval")
    parse(GHConfig, cfg.method_kwargs.get("gh"), "method_kwargs.gh")
    parse(COLTConfig, cfg.method_kwargs.get("colt"), "method_kwargs.colt")
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
    for wrapper in ("gh", "colt"):
        assert (wrapper in cfg.method_kwargs) == (f"{wrapper}_" in method)
    assert ("ood" in cfg.data) == ("colt_" in method)
    check(cfg)


def test_there_are_scripts_and_methods():
    assert len(SCRIPTS) >= 4
    assert {"simclr", "gh_simclr", "gh_byol", "colt_simclr", "gh_colt_simclr"} <= set(METHODS)
