# SPDX-License-Identifier: MIT
"""Triton's interpreter: kernels on a machine without a GPU."""

import os
import subprocess
import sys

import pytest

from tests.kit.paths import ROOT


def interpret(program: str) -> str:
    """Run a program in which Triton interprets; return what it prints.

    It is a process of its own, for Triton decides at import whether it interprets. The test is
    skipped where Triton is not installed.
    """
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
