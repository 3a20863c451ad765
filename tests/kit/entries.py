# SPDX-License-Identifier: MIT
"""Entries of tiny runs, further runs of one experiment without training them, and refusals."""

import json
import shutil
from pathlib import Path

import pytest

from ltplugins.cli import main
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.zoo.add import Naming, add

EVAL = ["eval.knn.k=2", "eval.linear.shots=[2]", "eval.seeds=[0]", "device=cpu"]


def measure(run: Path) -> Path:
    """Evaluate a tiny run, once."""
    if not (run / "results.json").exists():
        evaluate(compose_packaged("evaluate", [f"run='{run}'", *EVAL]))
    return run


def make_entry(run: Path, zoo: Path, name: str = "tiny") -> Path:
    """A zoo whose one entry is of a tiny run."""
    add([measure(run)], zoo, Naming(name))
    return zoo


def another_seed(run: Path, folder: Path, seed: int, gain: float = 0.0) -> Path:
    """A copy of an evaluated run that says it had another seed, and was better by ``gain``."""
    shutil.copytree(run, folder)
    config = folder / "config.yaml"
    text = config.read_text()
    assert "\nseed: " in text
    lines = [f"seed: {seed}" if line.startswith("seed: ") else line for line in text.split("\n")]
    config.write_text("\n".join(lines))
    results = json.loads((folder / "results.json").read_text())
    results["seed"] = seed
    for entry in results["protocols"].values():
        entry["overall"]["mean"] += gain
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command of ``ltplugins`` ends with, and exit code 2."""
    with pytest.raises(SystemExit) as end:
        main(words)
    message = capsys.readouterr().err
    assert end.value.code == 2 and message.count("\n") == 1, message
    return message
