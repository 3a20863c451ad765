# SPDX-License-Identifier: MIT
"""``ltplugins methods``: everything of ours is described, from where it stands."""

import dataclasses
import subprocess
import sys
from typing import Annotated

import pytest

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above
from ltplugins.host.facts import packaged_bases
from ltplugins.methods.describe import field_comments, options_of, parts_of
from ltplugins.methods.registry import METHODS, WRAPPERS
from ltplugins.stages.methods import methods

OURS = [*WRAPPERS, *METHODS]


@dataclasses.dataclass
class Example:
    # Above the field,
    # in two lines.
    first: int
    second: Annotated[float, Above(0)] = 1.0  # beside it
    third: Annotated[
        float,  # within it
        Above(0),
    ] = 2.0
    fourth: int = 3


def test_comments_are_those_on_and_just_above_a_field() -> None:
    assert field_comments(Example) == {
        "first": "Above the field, in two lines.",
        "second": "beside it",
        "third": "within it",
        "fourth": "",
    }


@pytest.mark.parametrize("name", [*OURS, *packaged_bases()])
def test_every_option_has_its_type_and_a_value(name: str) -> None:
    options = options_of(name)
    assert options
    for option in options:
        assert option.expected
        assert option.default or option.packaged, f"{name}.{option.key} has no value anywhere"


def test_options_say_range_default_file_and_comment() -> None:
    found = {option.key: option for option in options_of("gh")}
    assert found["temperature"].expected == "a number above 0"
    assert found["temperature"].default == "0.1"
    assert found["temperature"].comment == "gamma"
    assert found["temperature"].packaged == ""
    assert {o.key: o.packaged for o in options_of("mv")}["views"] == "4"
    assert (
        "method_kwargs.temperature" in {o.key: o.packaged for o in options_of("bcl")}["temperature"]
    )
    assert {o.key: (o.default, o.packaged) for o in options_of("simclr")}["temperature"] == (
        "",
        "0.2",
    )


def test_names_are_taken_apart() -> None:
    assert parts_of("gh_colt_simclr") == ["gh", "colt", "simclr"]
    assert parts_of("barlow_twins") == ["barlow_twins"]
    with pytest.raises(UserError, match="unknown method 'gh_simcl'"):
        parts_of("gh_simcl")
    with pytest.raises(UserError, match="unknown method 'gh_gml'"):
        parts_of("gh_gml")


def test_the_table_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    methods()
    text = capsys.readouterr().out
    for name, entry in {**WRAPPERS, **METHODS}.items():
        assert entry.usage in text, name
    assert all(base in text for base in packaged_bases())


def test_a_composition_shows_all_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    methods("bcl_sdclr_simclr")
    text = capsys.readouterr().out
    for block in ("method_kwargs.bcl", "method_kwargs.sdclr", "prune_ratio", "proj_output_dim"):
        assert block in text
    methods("dino")
    assert "solo-learn" in capsys.readouterr().out


def test_the_registry_is_light() -> None:
    """The command line and Hydra's search path import it before anything is trained."""
    code = "import sys, ltplugins.cli, ltplugins.methods.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
