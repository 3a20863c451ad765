# SPDX-License-Identifier: MIT
"""Run folders that somebody else has made: nothing is looked up for them, or written elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.catalogue.files import read_config
from ltplugins.config.literal import refuse_interpolations
from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from ltplugins.core.files import write_text
from ltplugins.eval.features import cached_features
from ltplugins.runs.checkpoint import open_run
from ltplugins.runs.entry import read_entry
from ltplugins.runs.folder import RunFolder
from tests.kit.tiny import tiny_config

SECRET = "${oc.env:TOKEN}"


def stored_config(folder: Path) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(tiny_config(folder, "simclr"), resolve=True)
    return config


@pytest.mark.parametrize("key", ["name", "data.train_path", "method_kwargs.temperature"])
def test_a_checkpoint_reads_nothing_of_this_machine(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hidden")
    config = stored_config(tmp_path)
    block = config
    *outer, last = key.split(".")
    for name in outer:
        block = block.setdefault(name, {})
    block[last] = SECRET
    file = tmp_path / "x.ckpt"
    torch.save({"epoch": 0, "state_dict": {}, "ltplugins": {"config": config}}, file)
    with pytest.raises(UserError) as refusal:
        open_run(file)
    assert f"{key}: expected a plain value, got the interpolation '{SECRET}'" in str(refusal.value)
    assert "hidden" not in str(refusal.value)


def test_nor_does_a_folders_config(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"callbacks: [{{x: [1, '{SECRET}']}}]\n")
    with pytest.raises(UserError, match=r"config\.yaml: callbacks\[0\]\.x\[1\]: expected a plain"):
        RunFolder(tmp_path).config()


def test_plain_values_pass() -> None:
    refuse_interpolations({"a": [1, None, "$x {y}"], "b": {"c": b"${d}", 3: 0.5}}, "x")


def nested(depth: int) -> dict[str, Any]:
    block: dict[str, Any] = {"x": 1}
    for _ in range(depth):
        block = {"x": block}
    return block


def test_blocks_without_end_are_one_line(tmp_path: Path) -> None:
    config = {**stored_config(tmp_path), "method_kwargs": nested(800)}
    with pytest.raises(UserError, match="the stored config is damaged: its brackets are nested"):
        resolve(config)
    (tmp_path / "config.json").write_text(json.dumps(nested(800)))
    with pytest.raises(UserError, match=r"config\.json is damaged: its brackets are nested"):
        read_config(tmp_path)


BLOCKS: list[tuple[dict[str, Any], str]] = [
    ({"epochs": "x"}, "ltplugins, epochs: expected a whole number of 0 or more or null, got 'x'"),
    ({"zoo": []}, "ltplugins, zoo: expected a block of keys or null, got []"),
    ({"zoo": {"config": "x"}}, "ltplugins, config: expected a block of keys or null, got 'x'"),
    ({"small_stem": "x"}, "ltplugins, small_stem: expected true or false or null, got 'x'"),
    ({"sha256": 3}, "ltplugins, sha256: expected text or null, got 3"),
]


@pytest.mark.parametrize(("changes", "text"), BLOCKS, ids=[next(iter(c)) for c, _ in BLOCKS])
def test_an_entrys_block_of_other_types_is_one_line(
    changes: dict[str, Any], text: str, tmp_path: Path
) -> None:
    block = {"zoo": {"config": stored_config(tmp_path)}, "origin": {}, **changes}
    (tmp_path / "config.json").write_text(json.dumps({"ltplugins": block}))
    with pytest.raises(UserError) as refusal:
        read_entry(tmp_path)
    assert text in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", [".lock", "checkpoints", "features", "tensorboard"])
def test_no_link_in_a_run_folder_is_written_through(name: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (tmp_path / "run").mkdir()
    if name == ".lock":
        other.write_text("precious")
    else:
        other.mkdir()
        (tmp_path / "run/.lock").touch()  # a run has been here
    (tmp_path / "run" / name).symlink_to(other)
    origin: Any = None
    with pytest.raises(UserError, match="got a link, through which another place"):
        RunFolder(tmp_path / "run").open(OmegaConf.create({}), {}, origin)
    assert other.read_text() == "precious" if name == ".lock" else not any(other.iterdir())


def test_a_cache_that_is_a_link_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "features").symlink_to("other")
    with pytest.raises(UserError, match="features: expected a folder of this run, got a link"):
        cached_features("key", tmp_path / "features", lambda: pytest.fail("it is computed"))


@pytest.mark.parametrize("name", ["run.json", "metrics.csv"])
def test_files_replace_a_link_in_their_place(name: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("precious")
    (tmp_path / name).symlink_to(tmp_path / "other")
    write_text(tmp_path / name, "new")
    assert (tmp_path / "other").read_text() == "precious"
    assert not (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "new"
