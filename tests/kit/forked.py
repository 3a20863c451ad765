# SPDX-License-Identifier: MIT
"""Processes that are fresh but for the slow imports: forked from one that has done these.

A new interpreter spends seconds on importing torch and Lightning before it reaches a line of ours.
``Popen`` and ``run`` are subprocess's own, except that a Python command (``-m``, ``-c``, a script)
is forked from a nursery: a process that has imported other people's packages, none of ours, has no
thread and has drawn no random number. The new process is a child of the caller like any other, with
the environment, folder, pipes and exit code that it would have; so is what it starts in its turn.
It shares the nursery's hash seed, and an import that is missing in a file of ours may be hidden:
some tests start real interpreters.
"""

import atexit
import ctypes
import functools
import gc
import importlib
import inspect
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tests.kit.paths import ROOT

PACKAGES = (
    *("torch", "torch._dynamo", "lightning.pytorch", "timm", "torchvision.transforms.v2"),
    *("hydra", "rich.logging", "rich.progress", "rich.table", "sklearn.linear_model"),
    *("sklearn.model_selection", "safetensors.torch", "filelock", "einops"),
)
# What packages read when they are imported: with other values it takes an interpreter.
READ_EARLY = ("PYTHON", "HF_", "MPL", "LD_", "OMP_")
ROOM = "TEST_ROOM"  # a variable that is there to be overwritten: see show_environment
START = "import sys; from tests.kit.forked import nursery; nursery(int(sys.argv[1]))"
PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Asked:
    """A process that somebody wants: its command without the interpreter."""

    words: list[str]
    folder: str
    env: dict[str, str]
    own_session: bool


class Popen(subprocess.Popen):
    """subprocess's, with the process forked from the nursery where that can be done."""

    def _execute_child(self, *given: Any) -> None:
        names = inspect.signature(super()._execute_child).bind(*given).arguments
        asked = readable(names)
        if asked is None:
            super()._execute_child(*given)
            return
        ends = [names[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        self.pid = fork([own if end == -1 else end for own, end in enumerate(ends)], asked)
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(names[name] for name in pipes))


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """subprocess.run with what a command says as text; it fails after ten minutes."""
    with Popen(command, text=True, stdout=-1, stderr=-1, **options) as process:
        try:
            said = process.communicate(timeout=600)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, *said)


def readable(names: dict[str, Any]) -> Asked | None:
    """What is asked for, or None where it takes an interpreter of its own."""
    command, env = names["args"], names["env"]
    if sys.platform != "linux" or isinstance(command, str) or command[0] != sys.executable:
        return None
    words = [str(word) for word in command[1:] if word != "-u"]
    if words[0] not in ("-m", "-c") and not words[0].endswith(".py"):
        return None
    if names["preexec_fn"] or names["pass_fds"]:
        return None
    env = dict(os.environ if env is None else env)
    early = {key for key in env.keys() ^ os.environ.keys() if key.startswith(READ_EARLY)}
    same = all(env[key] == value for key, value in os.environ.items() if key.startswith(READ_EARLY))
    if early or not same:
        return None
    return Asked(words, str(names["cwd"] or os.getcwd()), env, bool(names["start_new_session"]))


_turn = threading.Lock()
_own: socket.socket | None = None  # of a process that was forked: to the nursery that is its own


def fork(ends: list[int], asked: Asked) -> int:
    """The id of the new process, a child of this one; ``ends`` are its 0, 1 and 2."""
    with _turn:
        line = _own or _nursery()
        socket.send_fds(line, [pickle.dumps(asked)], ends)
        answer = line.recv(64)
    assert answer, "the nursery has ended"
    return int(answer)


@functools.cache
def _nursery() -> socket.socket:
    """Start it, once; it ends with this process, at the end of the line."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", START, str(theirs.fileno())]
    null = subprocess.DEVNULL
    env = {**os.environ, ROOM: "x" * 4096}
    options: Any = {"cwd": ROOT, "env": env, "stdin": null, "stdout": null}
    _nursery.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], **options)
    theirs.close()
    _adopt()
    return ours


def _adopt() -> None:
    """Make this process the parent of what its descendants leave behind."""
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


# --- in the nursery ---


def nursery(line: int) -> None:
    """Import the packages and serve; in each new process, become what is asked for."""
    global _own
    os.environ.pop(ROOM)
    for name in PACKAGES:
        importlib.import_module(name)
    assert_no_threads()
    gc.collect()
    gc.freeze()  # what is never collected stays shared
    place = socket.socket(fileno=line)
    while True:
        asked, ends = serve(place)
        place.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            break
        for end in (*ends, ours.detach()):
            os.close(end)
        place = theirs  # the new process's own nursery
    theirs.close()
    _own = ours
    _adopt()
    finish(lambda: become(asked, ends))


def assert_no_threads() -> None:
    """A fork takes along one thread alone, whatever the others held at that moment."""
    names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    others = sorted(names)
    others.remove(Path("/proc/self/comm").read_text().strip())
    # pyarrow's allocator knows of forks.
    assert set(others) <= {"jemalloc_bg_thd"}, f"the nursery has threads: {others}"


def serve(line: socket.socket) -> tuple[Asked, list[int]]:
    """Fork whoever is asked for; returns in the new process alone."""
    while True:
        request, ends, _, _ = socket.recv_fds(line, 1 << 20, 3)
        if not request:
            os._exit(0)
        told, tell = os.pipe()
        between = os.fork()
        if not between:
            between, child = os.getpid(), os.fork()
            if child:
                os.write(tell, str(child).encode())
                os._exit(0)
            while os.getppid() == between:
                time.sleep(0.001)
            os.close(told)
            os.close(tell)
            return pickle.loads(request), ends
        os.waitpid(between, 0)  # from here on the new process is the child of whoever asked
        line.send(os.read(told, 64))
        for end in (told, tell, *ends):
            os.close(end)


def become(asked: Asked, ends: list[int]) -> None:
    """Be the process that was asked for, to its end."""
    if asked.own_session:
        os.setsid()
    for own, end in enumerate(ends):
        os.dup2(end, own)
    for end in set(ends) - {0, 1, 2}:
        os.close(end)
    os.chdir(asked.folder)
    show_environment({k: v for k, v in asked.env.items() if os.environ.get(k) != v})
    os.environ.clear()
    os.environ.update(asked.env)
    as_imported_now()
    subprocess.Popen = Popen  # type: ignore[misc]
    what, *rest = asked.words
    sys.path[0] = asked.folder
    if what == "-m":
        sys.argv = rest
        main: Any = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
    elif what == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = asked.words
        sys.path[0] = os.path.dirname(os.path.abspath(what))
        runpy.run_path(what, run_name="__main__")


def finish(work: Callable[[], None]) -> NoReturn:
    """End as an interpreter does, without taking its modules apart, which takes long."""
    code: Any = 0
    try:
        work()
    except SystemExit as asked:
        code = asked.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)


def as_imported_now() -> None:
    """What packages have taken from the environment and the clock at their import."""
    import numpy as np
    from lightning.fabric.utilities import rank_zero

    rank_zero.rank_zero_only.rank = rank_zero._get_rank() or 0
    np.random.seed()
    signal.set_wakeup_fd(-1)


def show_environment(changed: dict[str, str]) -> None:
    """Let ``/proc/PID/environ`` show these variables, as of a process that began with them.

    It shows what lay in memory when the nursery began, where one variable has kept room for them.
    """
    with open("/proc/self/stat") as file:
        start, end = map(int, file.read().rpartition(")")[2].split()[47:49])
    memory = (ctypes.c_char * (end - start)).from_address(start)
    at = memory.raw.index(f"{ROOM}=".encode()) + len(ROOM) + 1
    text = "\0".join(["", *(f"{key}={value}" for key, value in changed.items())]).encode()
    room = 4096
    assert len(text) < room, "more variables have changed than there is room for"
    memory[at : at + room] = text.ljust(room, b"\0")
