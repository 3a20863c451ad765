# SPDX-License-Identifier: MIT
"""What is written where nobody reads, to a closed stream, or in letters that it does not have."""

import os
import subprocess
import sys
from typing import Any

import pytest

WORDS = """
from ltplugins.core.console import make_console
from ltplugins.core.door import guarded
from ltplugins.core.errors import UserError
from ltplugins.stages.logs import set_up_logging
import sys

def work():
    make_console().print("76.7 \\u00b1 0.5")
    if sys.argv[1:] == ["refuse"]:
        raise UserError("x: expected 1, got 2.")

set_up_logging()
guarded(work)
"""


def said(*words: str, shell: str = "", **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the words above, behind redirections of a shell's."""
    command = ["sh", "-c", f'exec "$0" -c "$@" {shell}', sys.executable, WORDS, *words]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment})


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["told", "of the locale"],
)
def test_a_letter_that_the_encoding_does_not_have_is_spelt_out(environment: dict[str, str]) -> None:
    done = said(**environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, rb"76.7 \xb1 0.5" + b"\n", b"")


def test_letters_that_it_has_stay() -> None:
    assert said(PYTHONIOENCODING="utf-8").stdout.decode() == "76.7 ± 0.5\n"


@pytest.mark.parametrize("streams", [["stdout"], ["stderr"], ["stdout", "stderr"]])
def test_a_reader_who_has_gone_ends_it_with_141(streams: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    kept: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", WORDS, "refuse"]
    done = subprocess.run(command, **{**kept, **dict.fromkeys(streams, write)})
    os.close(write)
    assert done.returncode == 141
    assert not done.stderr


@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_obstacle(shell: str) -> None:
    done = said(shell=shell)
    assert done.returncode == 0
    assert done.stdout.decode() == ("" if shell.startswith(">") else "76.7 ± 0.5\n")
    assert done.stderr == b""
    assert said("refuse", shell=shell).returncode == 2
