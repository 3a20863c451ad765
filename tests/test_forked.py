# SPDX-License-Identifier: MIT
"""Processes that tests fork stand for real interpreters: what such a one shows of itself."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit import forked
from tests.kit.launch import members

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are interpreters")
SHOWS = """
import json, os, sys
print(json.dumps({
    "parent": os.getppid(), "folder": os.getcwd(), "argv": sys.argv, "path": sys.path[0],
    "mark": os.environ.get("TEST_MARK"), "torch": "torch" in sys.modules,
    "ours": [name for name in sys.modules if name.startswith("ltplugins")],
    "rank": __import__("lightning").fabric.utilities.rank_zero_only.rank,
    "drawn": __import__("numpy").random.rand(), "name": __name__,
}))
"""
# A process of a process: its own child, of which it hears the end.
STARTS = """
import json, os, subprocess, sys
shown = "import json, os, sys; print(json.dumps([os.getppid(), 'torch' in sys.modules]))"
done = subprocess.run([sys.executable, "-u", "-c", shown], capture_output=True, text=True)
print(json.dumps([os.getpid(), *json.loads(done.stdout)]))
sys.exit(done.returncode + 7)
"""


def shown(command: list[str], folder: Path, **env: str) -> dict[str, Any]:
    done = forked.run([sys.executable, *command], cwd=folder, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_a_process_as_any_other(tmp_path: Path) -> None:
    script = tmp_path / "below/shows.py"
    script.parent.mkdir()
    script.write_text(SHOWS)
    first = shown(["-c", SHOWS, "a"], tmp_path, TEST_MARK="x", LOCAL_RANK="1")
    second = shown([str(script), "b"], tmp_path)
    assert first["parent"] == second["parent"] == os.getpid()
    assert first["folder"] == second["folder"] == str(tmp_path)
    assert (first["argv"], second["argv"]) == (["-c", "a"], [str(script), "b"])
    assert (first["path"], second["path"]) == (str(tmp_path), str(script.parent))
    assert (first["mark"], second["mark"]) == ("x", None)
    assert (first["rank"], second["rank"]) == (1, 0)
    assert first["name"] == second["name"] == "__main__"
    assert first["torch"] and not first["ours"] and not second["ours"]
    assert first["drawn"] != second["drawn"]


def test_its_end_is_told(tmp_path: Path) -> None:
    for code, expected, said in (
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no')", 1, "no\n"),
        ("raise KeyError('x')", 1, "KeyError: 'x'\n"),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
    ):
        done = forked.run([sys.executable, "-c", code], cwd=tmp_path)
        assert done.returncode == expected
        assert done.stderr.endswith(said)


def test_what_it_starts_is_its_own(tmp_path: Path) -> None:
    done = forked.run([sys.executable, "-c", STARTS], cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    own, parent, is_forked = json.loads(done.stdout)
    assert (parent, is_forked) == (own, True)


def test_it_is_found_by_its_mark(tmp_path: Path) -> None:
    code = "import signal; print(flush=True); signal.pause()"
    env = {**os.environ, "TEST_MARK": "found", "LOCAL_RANK": "1"}
    command = [sys.executable, "-c", code]
    process: Any = forked.Popen(command, env=env, stdout=subprocess.PIPE)
    process.mark = "found"
    assert process.stdout.readline()
    assert members(process) == members(process, rank=1) == [process.pid]
    assert members(process, rank=0) == []
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert members(process) == []
    process.stdout.close()


@pytest.mark.parametrize("env", [{"PYTHONHASHSEED": "1"}, {"HF_HOME": "/x"}])
def test_what_is_read_at_an_import_takes_an_interpreter(env: dict[str, str]) -> None:
    code = "import sys; sys.exit('torch' in sys.modules)"
    assert forked.run([sys.executable, "-c", code], env={**os.environ, **env}).returncode == 0
