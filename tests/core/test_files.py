# SPDX-License-Identifier: MIT
"""Files are whole or absent; what a killed process has left is known, and swept."""

import errno
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ltplugins.core import files


def left_by_a_dead_process(path: Path) -> Path:
    """A file under a temporary name of a process that has ended."""
    child = os.fork()
    if child == 0:
        tmp = files.temporary(path, path.suffix)
        tmp.write_text("half")
        os._exit(0)
    os.waitpid(child, 0)
    (found,) = [p for p in path.parent.iterdir() if files.is_temporary(p)]
    return found


def test_what_a_dead_process_has_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    left = left_by_a_dead_process(tmp_path / "a.json")
    alive = files.temporary(tmp_path / "a.json", ".json")
    elsewhere = tmp_path / ".a.part-000000-1-00000000.json"
    mine = tmp_path / ".a.parts.json"
    for path in (alive, elsewhere, mine):
        path.touch()
    assert files.sweep(tmp_path) == [left]
    assert {p.name for p in tmp_path.iterdir()} == {alive.name, elsewhere.name, mine.name}
    os.utime(elsewhere, (0, 0))  # of another machine: after a day nobody waits for it
    assert files.sweep(tmp_path) == [elsewhere]
    assert files.sweep(tmp_path / "nothing") == []


def test_a_writer_sweeps_where_it_writes(tmp_path: Path) -> None:
    left = left_by_a_dead_process(tmp_path / "a.json")
    files.write_text(tmp_path / "b.json", "{}")
    assert not left.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]


def test_a_folder_left_unfinished_is_swept_too(tmp_path: Path) -> None:
    left = left_by_a_dead_process(tmp_path / "out")
    left.unlink()
    left.mkdir()
    (left / "model").touch()
    with files.atomic_folder(tmp_path / "out") as tmp:
        (tmp / "model").touch()
    assert {p.name for p in tmp_path.iterdir()} == {"out"}


def test_the_file_is_flushed_then_named_then_its_folder_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    class Recorded:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def fsync(self, descriptor: int) -> None:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            done.append("folder" if os.path.isdir(target) else "file")

        def replace(self, *paths: Path) -> None:
            done.append("rename")
            os.replace(*paths)

    monkeypatch.setattr(files, "os", Recorded())
    files.write_text(tmp_path / "a.txt", "whole")
    assert done == ["file", "rename", "folder"]


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(OSError, match="No space") as error, files.atomic_path(path) as tmp:
        tmp.touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "before"


def test_a_full_disk_in_the_words_of_another_language(tmp_path: Path) -> None:
    """safetensors raises no OSError: what it meets at a limit of the disk is one all the same."""
    path, (ours, theirs) = tmp_path / "a.safetensors", os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        try:
            with files.atomic_path(path) as tmp:
                save_file({"x": torch.zeros(4096)}, tmp)
        except OSError as error:
            os.write(theirs, f"{error.errno} {error.filename}".encode())
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with open(ours) as said:
        assert said.read() == f"{errno.EFBIG} {path}"
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error, files.atomic_path(tmp_path / "a.txt"):
        open(tmp_path / "input.txt").close()
    assert error.value.filename == str(tmp_path / "input.txt")


def test_the_cache_is_of_the_home_that_a_tilde_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for given, found in [("~/c", "/home/me/c"), ("/c", "/c"), ("", "/home/me/.cache/ltplugins")]:
        monkeypatch.setenv("LTPLUGINS_CACHE", given)
        assert files.cache_folder() == Path(found)


def test_a_home_that_nobody_has_stays_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.expanded("~/runs") == tmp_path / "runs"
    assert files.expanded("~no-such-user/runs") == Path("~no-such-user/runs")
