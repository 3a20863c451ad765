# SPDX-License-Identifier: MIT
"""Who owns a run's folder: a run with a checkpoint; what replaces it is asked for."""

import errno
import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ltplugins.core import files
from ltplugins.core.errors import UserError
from ltplugins.core.records import to_plain
from ltplugins.runs.facts import Origin, SplitFacts
from ltplugins.runs.folder import Found, RunFolder
from ltplugins.runs.seal import save_sealed

ORIGIN = Origin(method="simclr", host="h", split=SplitFacts("all", "abc", 3, [2, 1], ["a", "b"]))
OLD, NEW = {"lr": -1, "max_epochs": 2}, {"lr": 0.1, "max_epochs": 2}


def opened(path, identity=OLD, **options) -> Found:
    run = RunFolder(path)
    try:
        return run.open(OmegaConf.create(identity), identity, ORIGIN, **options)
    finally:
        run.close()


def a_run(path, identity=OLD, **facts):
    """A run's folder with a checkpoint."""
    opened(path, identity)
    (path / "checkpoints/last.ckpt").write_bytes(b"weights")
    (path / "metrics.csv").write_text("old")
    RunFolder(path).update(**facts)
    return path


def test_a_start_without_a_checkpoint_owns_nothing(tmp_path):
    opened(tmp_path)
    (tmp_path / "metrics.csv").write_text("of a start that failed")
    (tmp_path / "notes.txt").write_text("mine")
    assert opened(tmp_path, NEW) is Found.NEW
    assert RunFolder(tmp_path).read().identity == NEW
    assert OmegaConf.load(tmp_path / "config.yaml") == NEW
    assert not (tmp_path / "metrics.csv").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_run_is_kept_and_the_refusal_names_the_ways(tmp_path):
    a_run(tmp_path)
    with pytest.raises(UserError, match=r"lr: -1 there, 0.1 here.*overwrite=true") as error:
        opened(tmp_path, NEW)
    assert "resume_from_checkpoint" not in str(error.value)
    with pytest.raises(UserError, match=r"last\.ckpt") as error:
        opened(tmp_path, {**OLD, "max_epochs": 5})
    assert "to train that run on to 5 epochs" in str(error.value).lower()
    assert f"resume_from_checkpoint={tmp_path}/checkpoints/last.ckpt" in str(error.value)
    assert (tmp_path / "checkpoints/last.ckpt").read_bytes() == b"weights"


def test_a_finished_run_without_checkpoints_is_kept_too(tmp_path):
    opened(tmp_path)
    RunFolder(tmp_path).update(finished="now")
    with pytest.raises(UserError, match="overwrite=true"):
        opened(tmp_path, NEW)


def test_overwrite_replaces_another_run_and_a_finished_one(tmp_path):
    a_run(tmp_path)
    assert opened(tmp_path, NEW, overwrite=True) is Found.NEW
    assert not (tmp_path / "checkpoints/last.ckpt").exists()
    a_run(tmp_path, NEW, finished="now")
    assert opened(tmp_path, NEW) is Found.OVER
    assert opened(tmp_path, NEW, overwrite=True) is Found.NEW


def test_overwrite_lets_an_interrupted_run_of_the_same_config_go_on(tmp_path):
    a_run(tmp_path)
    assert opened(tmp_path, overwrite=True) is Found.UNFINISHED
    assert (tmp_path / "checkpoints/last.ckpt").exists()
    assert opened(tmp_path, overwrite=True, resume=False) is Found.NEW
    assert not (tmp_path / "checkpoints/last.ckpt").exists()


def test_overwrite_replaces_damaged_facts(tmp_path):
    a_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        opened(tmp_path, NEW)
    assert opened(tmp_path, NEW, overwrite=True) is Found.NEW


def test_a_trial_owns_nothing(tmp_path):
    a_run(tmp_path, stopped="fast_dev_run")
    assert opened(tmp_path, NEW) is Found.NEW


def test_other_ranks_decide_alike(tmp_path):
    """Before the first rank has opened the folder as well as after it."""
    a_run(tmp_path)
    assert RunFolder(tmp_path).look(NEW, overwrite=True) is Found.NEW
    with pytest.raises(UserError):
        RunFolder(tmp_path).look(NEW)
    opened(tmp_path, NEW, overwrite=True)
    assert RunFolder(tmp_path).look(NEW, overwrite=True) is not Found.OVER
    assert RunFolder(tmp_path).last_checkpoint is None


@pytest.mark.parametrize("moment", range(1, 9))
def test_killed_while_it_is_made_it_opens_again(moment, tmp_path):
    """At every flush and every renaming of the first opening."""
    calls = []

    class Killed:
        def __getattr__(self, name):
            if name in ("fsync", "replace"):
                calls.append(name)
                if len(calls) == moment:
                    os._exit(9)
            return getattr(os, name)

    child = os.fork()
    if child == 0:
        files.os = Killed()
        opened(tmp_path)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == (9 if moment <= 6 else 0)  # two files: flushed, renamed, the folder flushed
    assert opened(tmp_path) is (Found.UNFINISHED if moment >= 6 else Found.NEW)
    assert {p.name for p in tmp_path.iterdir()} == {
        ".lock",
        "checkpoints",
        "config.yaml",
        "run.json",
    }


def test_a_damaged_config_is_written_anew(tmp_path):
    a_run(tmp_path)
    for damage in (": [", "\x00", "- 3"):
        (tmp_path / "config.yaml").write_text(damage)
        with pytest.raises(UserError, match=r"config\.yaml is damaged"):
            RunFolder(tmp_path).config()
        assert opened(tmp_path) is Found.UNFINISHED
        assert RunFolder(tmp_path).config() == OLD
    (tmp_path / "config.yaml").unlink()
    assert opened(tmp_path) is Found.UNFINISHED
    assert RunFolder(tmp_path).config() == OLD


@pytest.mark.parametrize("damage", [lambda path: path.write_text("{"), Path.unlink])
def test_lost_facts_come_back_from_the_checkpoint(damage, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("ltplugins.runs.mend.log.warning", lambda *a: said.append(a[0] % a[1:]))
    a_run(tmp_path)
    meta = {**to_plain(ORIGIN), "identity": OLD}
    content = {"state_dict": {}, "epoch": 0, "ltplugins": meta}
    save_sealed(content, tmp_path / "checkpoints/last.ckpt")
    damage(tmp_path / "run.json")
    with pytest.raises(UserError, match="another config"):
        opened(tmp_path, NEW)
    assert opened(tmp_path) is Found.UNFINISHED
    assert RunFolder(tmp_path).read().identity == OLD
    assert "run.json" in said[0]
    assert "lost are when the run began" in said[0]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    """A finished run there is complete, an unfinished one refused in one line."""

    def read_only(folder):
        raise OSError(errno.EROFS, "Read-only file system")

    a_run(tmp_path)
    monkeypatch.setattr("ltplugins.runs.folder.take_lock", read_only)
    with pytest.raises(UserError, match=r"output_dir: expected a folder that can be written.*Read"):
        opened(tmp_path)
    RunFolder(tmp_path).update(finished="now")
    assert opened(tmp_path) is Found.OVER
    with pytest.raises(UserError, match="output_dir: expected a folder that can be written"):
        opened(tmp_path, NEW)


def test_a_folder_of_other_files_is_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"is not empty and holds no run \(found thesis.tex\)"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
