# SPDX-License-Identifier: MIT
"""scripts/segment: commands at once, what waits for what, the end of time, and the table."""

import itertools
import json
import sys
from types import SimpleNamespace

import pytest

from tests.kit.paths import ROOT

FOLDER = ROOT / "scripts/segment"
pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason="no checkout: scripts/segment/ is absent"
)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import jobs
    import land_table

    yield SimpleNamespace(table=land_table, jobs=jobs)
    for name in ("jobs", "land_table"):
        sys.modules.pop(name, None)


def python(code):
    return [sys.executable, "-I", "-S", "-c", code]


def numbers(value):
    return {"numbers": dict.fromkeys(("mIoU", "pixel accuracy", "rare by images"), value)
            | {"rare by pixels": None, "frequent by pixels": value}}  # fmt: skip


def test_what_needs_another_waits_for_it_and_falls_with_it(script, tmp_path):
    first, last = tmp_path / "first", tmp_path / "last"
    tasks = [
        script.jobs.Task("b", python(f"import os; os.rename({str(first)!r}, {str(last)!r})"), "a"),
        script.jobs.Task("a", python(f"open({str(first)!r}, 'w').write('made')")),
        script.jobs.Task("bad", python("print('why'); raise SystemExit(3)")),
        script.jobs.Task("of bad", python("pass"), "bad"),
        script.jobs.Task("alone", python("pass"), "not among them"),
    ]  # fmt: skip
    ended = []
    lost = script.jobs.run_tasks(tasks, tmp_path / "logs", jobs=2, done=ended.append)
    assert last.read_text() == "made" and set(ended) == {"a", "b", "alone"}
    assert lost == {
        "bad": f"exit code 3, see {tmp_path}/logs/bad.log",
        "of bad": "bad failed",
    }
    assert (tmp_path / "logs/bad.log").read_text() == "why\n"


def test_the_end_of_time_ends_what_runs_and_begins_nothing(script, tmp_path):
    tasks = [
        script.jobs.Task("long", python("import time; time.sleep(600)")),
        script.jobs.Task("next", python(f"open({str(tmp_path / 'begun')!r}, 'w')")),
    ]
    clock = itertools.count().__next__
    lost = script.jobs.run_tasks(tasks, tmp_path / "logs", limit=1, clock=clock)
    assert lost == {"long": "time was up", "next": "time was up"}
    assert not (tmp_path / "begun").exists()


def test_each_encoder_is_trained_once_and_done_cells_are_left_alone(
    script, tmp_path, monkeypatch, capsys
):
    words = ["--out", str(tmp_path), "--seeds", "0", "1", "--encoders", "random", "simclr"]
    args = script.table.read_arguments([*words, "--precision", "bf16", "decoder=fpn"])
    every = script.table.tasks(script.table.wanted(args), args)
    names = [task.name for task in every]
    assert names[:5] == [
        "encoder-simclr-0", "random-ce-0", "random-adjusted-0", "simclr-ce-0", "simclr-adjusted-0",
    ]  # fmt: skip
    assert len(names) == 10 and {task.needs for task in every[1:5]} == {"encoder-simclr-0"}
    command = every[1].command
    for word in ("weights=random", "loss=ce", "precision=bf16-mixed", "decoder=fpn", "seed=0"):
        assert word in command
    assert "max_epochs=60" in every[0].command and "decoder=fpn" not in every[0].command

    begun = []

    def pretend(tasks, logs, *, jobs, limit, done):
        for task in tasks:
            begun.append(task.name)
            if "-1" not in task.name:  # seed 1 is not reached
                done(task.name)
        return {name: "time was up" for name in begun if "-1" in name}

    monkeypatch.setattr(script.table, "run_tasks", pretend)
    monkeypatch.setattr(script.table, "numbers", lambda folder: numbers(len(folder.name)))
    with pytest.raises(SystemExit) as end:
        script.table.main(words)
    assert end.value.code == 1 and "not done: simclr-ce-1: time was up" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "cells.json").read_text())["cells"]) == 4
    begun.clear()
    monkeypatch.setattr(
        script.table, "run_tasks", lambda tasks, *a, **k: begun.extend(t.name for t in tasks) or {}
    )
    with pytest.raises(SystemExit) as end:
        script.table.main(words)
    assert end.value.code == 0 and begun[0] == "encoder-simclr-1" and len(begun) == 5
    with pytest.raises(
        SystemExit, match=r"is of .*'epochs': 30.*, not of .*'epochs': 4.*another --out"
    ):
        script.table.main([*words, "--epochs", "4"])


def test_the_table_says_how_many_and_pairs_by_seed(script, tmp_path):
    words = ["--out", str(tmp_path), "--encoders", "random", "simclr", "--losses", "ce"]
    args = script.table.read_arguments(words)
    values = {"random-ce-0": 10.0, "random-ce-1": 20.0, "simclr-ce-0": 12.0, "simclr-ce-1": 22.0}
    cells = {name: numbers(value) for name, value in values.items()} | {
        "simclr-ce-2": numbers(90.0)
    }
    lines = script.table.table(cells, args).splitlines()
    # Student's t of one degree of freedom is 12.706: 12.706 * 7.0711 / sqrt(2).
    assert lines[4].startswith("| random | ce | 2 | 15.0 ± 63.5 |")
    assert lines[5].startswith("| simclr | ce | 3 |")
    assert (
        lines[6]
        == "| simclr minus random | ce | 2 | "
        + " | ".join(["2.0 ± 0.0"] * 3 + ["n/a", "2.0 ± 0.0"])
        + " |"
    )


def test_what_cannot_be_is_refused(script, capsys, monkeypatch):
    monkeypatch.setattr(script.table, "_has_gpu", lambda: False)
    for words, text in (
        (["--jobs", "0"], "--jobs: expected 1 or more, got 0"),
        (["--accelerator", "gpu"], "--accelerator: expected auto or cpu"),
    ):
        with pytest.raises(SystemExit) as end:
            script.table.read_arguments(words)
        assert end.value.code == 2 and text in capsys.readouterr().err
