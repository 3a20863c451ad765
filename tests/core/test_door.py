# SPDX-License-Identifier: MIT
"""Every kind of error leaves by one door, at every stage: a line, or a traceback and a report."""

import errno
import logging
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
import torch
import yaml
from hydra.errors import OverrideParseException
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError

from ltplugins import cli, run
from ltplugins.core.door import as_user_error, report
from ltplugins.core.errors import UserError
from ltplugins.stages import launch

FULL = OSError(errno.ENOSPC, "No space left on device", "/runs/a/last.ckpt")
KNOWN = [
    (UserError("key: expected 1, got 2."), "key: expected 1, got 2."),
    (FULL, "/runs/a/last.ckpt: No space left on device. Make room, or write elsewhere"),
    (PermissionError(errno.EACCES, "Permission denied", b"/x"), "/x: Permission denied. Change"),
    (OSError(errno.EROFS, "Read-only file system"), "a file: Read-only file system. Write else"),
    (OSError("40 requested and 8 written"), "a file cannot be read or written: 40 requested"),
    (UnidentifiedImageError("cannot identify x"), "damaged, or of another kind: cannot identify x"),
    (
        Image.DecompressionBombError("too many\npixels"),
        "damaged, or of another kind: too many",
    ),
    (zipfile.BadZipFile("no zip"), "a file is damaged, or of another kind: no zip"),
    (SafetensorError("header"), "a file is damaged, or of another kind: header"),
    (yaml.YAMLError("line 3"), "line 3."),
    (OverrideParseException("a=[", "mismatched input"), "mismatched input"),
    (ConfigKeyError("Key 'x' is not in struct"), "Key 'x' is not in struct"),
    (MisconfigurationException("No supported gpu backend"), "No supported gpu backend."),
    (
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        "damaged, or of another kind: 'utf-8' codec can't decode byte 0xff",
    ),
    (EOFError("No data left in file"), "damaged, or of another kind: No data left in file"),
    (
        MemoryError("Unable to allocate 7 TiB"),
        "the memory is full (Unable to allocate 7 TiB). Take",
    ),
    (torch.OutOfMemoryError("CUDA out of memory"), "the memory is full (CUDA out of memory). Take"),
    (RuntimeError("DefaultCPUAllocator: not enough memory"), "the memory is full (DefaultCPU"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "has died"),
    (RuntimeError("DataLoader timed out after 600 seconds"), "data.worker_timeout"),
]
DEFECTS = [KeyError("x"), RuntimeError("shapes"), AssertionError(), ConnectionResetError(104, "x")]


def kinds(errors: list) -> list[str]:
    return [
        f"{type(e[0] if isinstance(e, tuple) else e).__name__}{i}" for i, e in enumerate(errors)
    ]


@pytest.mark.parametrize(("error", "text"), KNOWN, ids=kinds(KNOWN))
def test_what_a_user_can_cause_is_one_line(error: Exception, text: str) -> None:
    known = as_user_error(error)
    assert known is not None
    assert text in str(known)
    assert "\n" not in str(known)


@pytest.mark.parametrize("error", DEFECTS, ids=kinds(DEFECTS))
def test_the_rest_is_reported_with_versions(error: Exception) -> None:
    assert as_user_error(error) is None
    text = report(error)
    assert type(error).__name__ in text
    for name in ("ltplugins 0.", "Python 3.", "torch 2.", "lightning 2.", sys.platform):
        assert name in text.lower() or name in text


# What each command does first, once its words are read.
STAGES = {
    "pretrain": ("ltplugins.stages.pretrain.prepare", []),
    "pretrain --multirun": ("ltplugins.stages.multirun.plan", ["seed=1,2"]),
    "evaluate": ("ltplugins.stages.evaluate.prepare", ["x"]),
    "balance": ("ltplugins.stages.balance.prepare", ["x"]),
    "finetune": ("ltplugins.stages.finetune.prepare", ["x"]),
    "segment": ("ltplugins.stages.segment.prepare", ["x"]),
    "features": ("ltplugins.stages.features.show_features", ["x", "y", "--out", "z.npz"]),
    "export": ("ltplugins.stages.export.show_export", ["x", "y"]),
    "report": ("ltplugins.stages.report.report", ["x"]),
    "debug": ("ltplugins.stages.debug.debug", ["x"]),
    "methods": ("ltplugins.stages.methods.methods", []),
    "demo": ("ltplugins.stages.demo.demo", []),
    "zoo list": ("ltplugins.stages.zoo.copies.show_list", []),
    "zoo info": ("ltplugins.stages.zoo.info.show_info", ["x"]),
    "zoo get": ("ltplugins.stages.zoo.copies.show_get", []),
    "zoo verify": ("ltplugins.stages.zoo.verify.show_verify", []),
    "zoo add": ("ltplugins.stages.zoo.add.add", ["x", "--zoo", "z"]),
    "zoo card": ("ltplugins.stages.zoo.add.refresh", ["--zoo", "z"]),
    "zoo sign": ("ltplugins.stages.zoo.sign.sign_zoo", ["--key", "k", "--zoo", "z"]),
    "zoo serve": ("ltplugins.stages.zoo.serve.serve", ["--zoo", "z"]),
}


@pytest.fixture(autouse=True)
def no_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(launch, "set_up_logging", lambda: None)
    for name in ("logs", "multirun"):
        monkeypatch.setattr(f"ltplugins.stages.{name}.set_up_logging", lambda: None)
    yield
    for logger in logging.root.manager.loggerDict.values():  # Hydra has disabled those it found
        if isinstance(logger, logging.Logger):
            logger.disabled = False


def test_every_command_is_among_them() -> None:
    """As the command line itself lists them, so that a new one has the door as well."""
    commands = cli._commands(cli._parser())
    parts = {f"zoo {part}" for part in cli._commands(commands.pop("zoo"))}
    assert {*commands, *parts} == STAGES.keys() - {"pretrain --multirun"}


def require_door(call: Callable[[], object], capsys: pytest.CaptureFixture[str], text: Any) -> None:
    """What a user can cause is one line and exit code 2, the rest a traceback and a report."""
    with pytest.raises(SystemExit) as end:
        call()
    said = capsys.readouterr().err
    if text is None:
        assert end.value.code == 1, said
        assert "Traceback" in said
        assert "Please report it" in " ".join(said.split())
    else:
        assert end.value.code == 2, said
        assert said.startswith("error: ")
        assert text in said
        assert said.count("\n") == 1
        assert "Traceback" not in said


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_the_door(
    stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, words = STAGES[stage]
    composer = SimpleNamespace(compose=lambda words: OmegaConf.create({"run": "x"}))
    monkeypatch.setattr(launch, "Composer", lambda *args: composer)  # reading files is not asked
    for error, text in [*KNOWN, *((error, None) for error in DEFECTS)]:

        def fail(*args: object, error: Exception = error, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr(place, fail)
        require_door(lambda: cli.main([*stage.split(), *words]), capsys, text)


SCRIPT = """import hydra

@hydra.main(version_base="1.2", config_path=None)
def main(cfg):
    from tests.core import test_door
    raise test_door.PLANTED[-1]

main()
"""
PLANTED: list[Exception] = []


@pytest.mark.parametrize("within", [False, True], ids=["before it", "in its task"])
def test_a_script_of_solo_learns_has_it_too(
    within: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Before the script, and in the task that Hydra calls for it."""
    script = tmp_path / "main_pretrain.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("LTPLUGINS_HOST", "solo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hydra, "main", hydra.main)  # which is taken back with it
    quiet = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=disabled"]
    monkeypatch.setattr("ltplugins.host.mains.our_data", lambda *args: nullcontext())
    known = KNOWN[::5] if within else KNOWN  # Hydra takes its time
    for error, text in [*known, *((error, None) for error in DEFECTS[:: 1 + 3 * within])]:

        def prepare(error: Exception = error) -> Any:
            PLANTED.append(error)
            if not within:
                raise error
            return SimpleNamespace(describe=lambda: "solo-learn")

        monkeypatch.setattr("ltplugins.host.prepare", prepare)
        monkeypatch.setattr(sys, "argv", ["ltplugins.run", str(script), *quiet])
        require_door(run.main, capsys, text)
