# SPDX-License-Identifier: MIT
"""The examples in docstrings are true: every module that has one is run."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

from tests.kit.paths import ROOT

PROMPT = re.compile(r"^\s*>>> ", re.MULTILINE)


def with_examples(folder: Path) -> list[str]:
    """Modules of a package's folder whose source shows a prompt."""
    files = [path for path in sorted(folder.rglob("*.py")) if PROMPT.search(path.read_text())]
    return [".".join(path.relative_to(folder.parent).with_suffix("").parts) for path in files]


def failures(module: object) -> tuple[int, int]:
    """How many examples fail, of how many."""
    return doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)  # type: ignore[arg-type]


MODULES = with_examples(ROOT / "ltplugins")


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    failed, tried = failures(importlib.import_module(name))
    assert tried > 0, f"{name}: its prompt is in no docstring"
    assert failed == 0


def test_the_functions_that_a_user_calls_have_examples() -> None:
    rooms = {name.split(".")[1] for name in MODULES}
    assert {"losses", "metrics"} <= rooms
    assert len(MODULES) >= 10


def test_a_wrong_example_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "wrong_examples"
    package.mkdir()
    source = (
        'def double(x):\n    """Twice x.\n\n    >>> double(2)\n    5\n    """\n    return 2 * x\n'
    )
    (package / "double.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert with_examples(package) == ["wrong_examples.double"]
    assert failures(importlib.import_module("wrong_examples.double")) == (1, 1)
