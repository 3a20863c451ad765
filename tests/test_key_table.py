# SPDX-License-Identifier: MIT
"""README's table of keys and what the pages say in numbers, against the code."""

import re
from collections.abc import Sequence
from typing import get_args, get_type_hints

import pytest

from ltplugins.config.resolve import resolve
from ltplugins.data.imbalance import ImbalanceConfig
from ltplugins.data.schema import Dataset, Sampler
from ltplugins.host.facts import BASES
from ltplugins.methods.registry import METHODS, WRAPPERS, load_mixin
from ltplugins.stages.blocks import config_blocks, run_keys
from ltplugins.stages.compose import compose_packaged
from tests.kit.paths import ROOT


def cell(key: str) -> str:
    """The values that README gives for a key."""
    text = (ROOT / "README.md").read_text()
    (row,) = re.findall(rf"^\| `{re.escape(key)}`[^|]*\| (.*) \|$", text, re.MULTILINE)
    return row


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("data.dataset", get_args(Dataset)),
        ("data.sampler", get_args(Sampler)),
        ("data.sampler", ("workers", "batched", "dali")),
        ("data.imbalance", get_args(get_type_hints(ImbalanceConfig)["kind"])),
        ("method", [name for name, base in BASES.items() if base.packaged]),
        ("method", [*METHODS, *(f"{name}_" for name in WRAPPERS)]),
    ],
)
def test_the_table_of_keys_names_every_value(key: str, values: Sequence[str]) -> None:
    shown = cell(key).replace("\\|", " ")
    missing = [
        value for value in values if not re.search(rf"(?<![a-z0-9]){value}(?![a-z0-9])", shown)
    ]
    assert values and not missing, f"README's row of {key} lacks {missing}"


def test_every_page_says_how_many_files_a_method_touches() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "docs/house.md"):
        text = (ROOT / page).read_text()
        assert re.search(r"\bnine files\b", text), page
        assert "five files" not in text, page


@pytest.mark.parametrize("method", ["iccl", "mttv", "colt_simclr"])
def test_a_method_sets_the_sampler_that_it_needs(method: str) -> None:
    cfg = compose_packaged("pretrain", [f"method={method}"], run_keys)
    sampler = resolve(cfg, config_blocks).data.sampler.name
    assert sampler in load_mixin(method.split("_")[0]).needs.samplers


@pytest.mark.parametrize(
    ("method", "augmentations"), [("gml", "small_gml"), ("mttv", "imagenet_plain_strong")]
)
def test_one_crop_size_is_that_of_all_views(method: str, augmentations: str) -> None:
    words = [f"method={method}", f"augmentations={augmentations}", "augmentations.0.crop_size=96"]
    blocks = resolve(compose_packaged("pretrain", words, run_keys), config_blocks).augmentations
    assert [block.crop_size for block in blocks] == [96, 96]
