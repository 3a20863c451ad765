# SPDX-License-Identifier: MIT
"""Run folders that somebody else has made: nothing is looked up for them, or written elsewhere."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.config.literal import refuse_interpolations
from ltplugins.core.errors import UserError
from ltplugins.core.files import write_text
from ltplugins.eval.features import cached_features
from ltplugins.runs.checkpoint import open_run
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
