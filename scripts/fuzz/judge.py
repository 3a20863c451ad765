# SPDX-License-Identifier: MIT
"""What holds of every input: it works, or it is refused in one line; nothing else happens.

Nothing else: no other exception, no hang, no file written outside the folder of the case, no
program started, no class unpickled, no connection. Python's audit events show these as they occur.
"""

import contextlib
import io
import logging
import os
import platform
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis.strategies import SearchStrategy

from ltplugins.core.files import CACHE_VARIABLE
from ltplugins.stages import launch

CPU_SECONDS, WALL_SECONDS = 60, 600  # of a case; the second is for what waits
_CODE = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen",
         "pickle.find_class", "socket.connect", "socket.getaddrinfo")  # fmt: skip
# Events, and which of their arguments are places that are written to.
_WRITES = {"os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,),
           "os.symlink": (1,), "os.link": (1,), "os.truncate": (0,), "os.chmod": (0,),
           "shutil.rmtree": (0,)}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Reached(BaseException):
    """A command has got through to its work, which is another matter."""


class Hang(BaseException):
    """A case takes too long."""


class Finding(AssertionError):
    """An input on which the property does not hold."""


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        name: of the target.
        inputs: from which hypothesis draws.
        use: takes an input, in an empty folder that is the working folder.
        ready: is called before, for what an input needs that is made once.
        wishes: whether an input may ask for a place to write to, as a command line does: outside
            the folder it then finds a disk that is read-only.
    """

    name: str
    inputs: SearchStrategy[Any]
    use: Callable[[Any], object]
    ready: Callable[[], object] = lambda: None
    wishes: bool = False


@dataclass
class _Watch:
    """What happens while a case runs."""

    folder: Path | None = None
    wishes: bool = False
    seen: list[str] = field(default_factory=list)

    def hear(self, event: str, given: tuple[Any, ...]) -> None:
        """Note what must not happen, and forbid it."""
        if self.folder is None:
            return
        if event in _CODE:
            self.seen.append(f"{event} {given!r:.200}")
            raise PermissionError(1, f"{event} is forbidden here")
        if event == "open" and isinstance(given[2], int) and given[2] & _WRITING:
            self._look_at(event, given[0])
        for place in _WRITES.get(event, ()):
            if given[-1] == -1 or event in ("os.truncate", "shutil.rmtree"):
                self._look_at(event, given[place])

    def _look_at(self, event: str, place: Any) -> None:
        assert self.folder is not None
        if not isinstance(place, str | bytes | os.PathLike):
            return  # a descriptor that is open
        path = os.path.realpath(os.fsdecode(place))
        if path.startswith(f"{self.folder}{os.sep}") or path in (os.devnull, str(self.folder)):
            return
        if path.endswith((".pyc", "__pycache__")) or ".pyc." in path:
            return  # Python's own, of modules that are imported late
        if not self.wishes:
            self.seen.append(f"{event} {path}")
        raise PermissionError(30, "Read-only file system", path)


_watch = _Watch()
_hooked: list[bool] = []


def judge(target: Target, given: Any) -> str:
    """Hold one input to the property.

    Returns:
        ``works`` or ``refused``.

    Raises:
        Finding: it does not hold.
    """
    if not _hooked:  # there is no way to take it off again
        _hooked.append(True)
        platform.processor()  # starts a program, once
        sys.addaudithook(lambda event, args: _watch.hear(event, args))
    target.ready()
    said = io.StringIO()
    code: Any = 0
    with _own_folder(target.wishes), _time_limit(), _quiet(said):
        try:
            launch.guarded(lambda: target.use(given))
        except Reached:
            pass
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = "".join(traceback.format_exception(error))
    if _watch.seen:
        raise Finding(f"{target.name}: it does {'; '.join(_watch.seen[:3])}")
    if code in (0, None):
        return "works"
    lines = said.getvalue().rstrip("\n").split("\n")
    if code != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
        raise Finding(f"{target.name}: exit {code}\n{said.getvalue()[-6000:]}")
    return "refused"


@contextlib.contextmanager
def _own_folder(wishes: bool) -> Iterator[None]:
    """An empty working folder, and beside it a cache and a home, all gone afterwards."""
    folder, before = Path(tempfile.mkdtemp(prefix="fuzz-")).resolve(), os.getcwd()
    (folder / "work").mkdir()
    os.chdir(folder / "work")
    places = {CACHE_VARIABLE: f"{folder}/cache", "HOME": f"{folder}/home", "TMPDIR": f"{folder}"}
    places |= {"LTPLUGINS_ZOO": f"{folder}/work/zoo", "TOKEN": "hidden"}
    _watch.seen, _watch.wishes = [], wishes
    try:
        with mock.patch.dict(os.environ, places):
            _watch.folder = folder
            yield
    finally:
        _watch.folder = None
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quiet(said: io.StringIO) -> Iterator[None]:
    """Keep what is said: errors apart from the log, which may have any number of lines."""
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(launch, "set_up_logging", lambda: None),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """End what goes on for ever: by the processor's time, so that a busy machine is no hang."""

    def end(*_: Any) -> None:
        raise Hang

    kinds = ((signal.SIGPROF, signal.ITIMER_PROF, CPU_SECONDS),
             (signal.SIGALRM, signal.ITIMER_REAL, WALL_SECONDS))  # fmt: skip
    before = [(number, signal.signal(number, end)) for number, _, _ in kinds]
    for _, timer, seconds in kinds:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for _, timer, _ in kinds:
            signal.setitimer(timer, 0)
        for number, handler in before:
            signal.signal(number, handler)
