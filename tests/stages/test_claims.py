# SPDX-License-Identifier: MIT
"""Claims: the file, its cells, several at once, and what travels in an archive."""

import argparse
import csv
import fcntl
import json
import os
import shutil
import signal
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from ltplugins.core.errors import UserError
from ltplugins.core.files import write_json
from ltplugins.eval.results import Results
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.claims import command, train
from ltplugins.stages.claims.book import Measure, read_book
from ltplugins.stages.claims.cells import Cell, Setting, plan_cells
from ltplugins.stages.claims.ledger import read_ledger, write_ledger
from ltplugins.stages.claims.pack import pack, weights_alone
from ltplugins.stages.claims.pool import Pool
from ltplugins.stages.claims.work import train_and_evaluate
from tests.kit.claims import write_book
from tests.kit.paths import ROOT

PACKAGED = ROOT / "scripts/sweep/claims.yaml"


@pytest.fixture(scope="module")
def book():
    return read_book(PACKAGED)


def cells_named(folder: Path, *names: str, of: dict[str, str] | None = None) -> list[Cell]:
    made: dict[str, Cell] = {}
    for name in names:
        first = made.get((of or {}).get(name, ""))
        made[name] = Cell(name, folder, "pretrain", (f"name={name}",), "cpu", first)
    return list(made.values())


# The file


def test_claims_that_share_an_arm_share_its_cells(book, tmp_path):
    claims = book.chosen(["gh", "gh-k10", "ts"])
    names = [cell.name for cell in plan_cells(book, claims, Setting(tmp_path, pairs=2))]
    assert names == [
        f"fashion,{arm},p{pair}"
        for pairs in (
            [("gh_simclr,e500", "simclr,e500")] * 2,
            [("gh_simclr_k10,e500",)] * 2,
            [("ts_simclr,e300", "simclr,e300")] * 2,
        )
        for pair, arms in enumerate(pairs, 1)
        for arm in arms
    ]


def test_every_claim_has_its_six_pairs(book):
    for claim in book.claims:
        pairs = book.data[claim.data].pairs
        assert len(pairs) >= 6
        assert len(set(pairs)) == len(pairs)


def test_a_trial_keeps_the_shares_and_has_names_of_its_own(book, tmp_path):
    (claim,) = book.chosen(["views-cost"])
    assert claim.sides() == (("mv_simclr", 170), ("simclr", 300))
    assert claim.sides(10) == (("mv_simclr", 6), ("simclr", 10))
    whole, trial = (plan_cells(book, [claim], Setting(tmp_path, epochs=n)) for n in (None, 10))
    assert not {cell.name for cell in whole} & {cell.name for cell in trial}


def test_devices_and_words_have_folders_of_their_own(tmp_path):
    here = Setting(tmp_path)
    there = replace(here, accelerator="cuda", words=("precision=bf16-mixed",))
    assert here.folder == tmp_path / "cpu"
    assert there.folder == tmp_path / "cuda,precision=bf16-mixed"


def test_a_second_stage_comes_after_its_first(book, tmp_path):
    cells = plan_cells(book, book.chosen(["gml-teacher"]), Setting(tmp_path, pairs=1))
    assert [cell.name.split(",")[1] for cell in cells] == ["adjusted_cosine", "gml_teacher"]
    assert cells[1].of == cells[0]
    assert f"method_kwargs.teacher='{cells[0].path}'" in cells[1].command


def test_measures_are_read_as_they_are_written():
    for text in ("knn few", "classifier/linear_lt balanced"):
        assert str(Measure.from_scalar(text)) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b["claims"][0].update(ours="simclar"), "unknown arm 'simclar'. Did you mean"),
        (lambda b: b["claims"][0].update(ours="simclr"), "base: expected another arm than ours"),
        (lambda b: b["claims"][0].update(data="x"), "unknown data 'x'"),
        (lambda b: b["claims"][0].update(measures=["kn few"]), "unknown protocol 'kn'"),
        (
            lambda b: b["claims"][0].update(measures=["knn fewer"]),
            "unknown group of classes 'fewer'",
        ),
        (lambda b: b["claims"][0].update(epochs=0), "claims.0..epochs: expected a whole number"),
        (lambda b: b["claims"].append(b["claims"][0]), "claims: expected claims of diff"),
        (lambda b: b["arms"]["second"].update(of="second"), "arms.second.of: expected an arm that"),
        (lambda b: b["arms"]["second"].pop("of"), "arms.second.of: expected the arm whose"),
        (lambda b: b.update(arm={}), "unknown key 'arm'. Did you mean 'arms'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read_book(write_book(tmp_path, change))


def test_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read as YAML"):
        read_book(tmp_path / "none.yaml")


# Cells


def call(folder: Path, *words: str) -> None:
    arguments = ["--file", str(folder / "claims.yaml"), "--root", str(folder / "cells"), *words]
    command.main(arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder whose cells of one pair have been trained here, and their names in that order."""
    folder = tmp_path_factory.mktemp("claims")
    names: list[str] = []

    class Here(Pool):
        def _start(self, cell):
            names.append(cell.name)
            train_and_evaluate(cell)
            self.outcome.done.append(cell.name)

    write_book(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ltplugins.stages.claims.pool.Pool", Here)
        call(folder, "--pairs", "1")
    return folder, tuple(names)


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "cells").glob("claims*")}


def test_a_second_run_adds_nothing(trained, capsys):
    folder, names = trained
    assert names == ("tiny,first,e1,p1", "tiny,simclr,e1,p1", "tiny,second,e1,p1")
    before = written(folder)
    assert set(before) == {"claims.md", "claims.csv", "claims.html", "claims_cells.csv"}
    rows = before["claims.csv"].decode().splitlines()
    assert rows[1].startswith("tail,knn few,unknown,")
    assert ",1,6,second " in rows[1]
    call(folder, "--pairs", "1")
    assert "0 of 3 cells are missing" in capsys.readouterr().err
    assert written(folder) == before


def test_the_ledger_keeps_what_each_class_came_to(trained):
    folder, _ = trained
    (cell,) = (folder / "cells").glob("*/tiny,second,e1,p1")
    results = Results.read(cell / "results.json")
    ledger = read_ledger(folder / "cells")
    line = next(line for line in ledger.values() if line.cell == cell.name)
    assert line.images == tuple(RunFolder(cell).read().split.class_counts)
    assert set(line.by_class) == {"knn", "classifier"}
    for protocol, shares in line.by_class.items():
        (entry,) = (one for name, one in results.protocols.items() if name.startswith(protocol))
        assert shares == pytest.approx(entry.per_class, abs=5e-5)
        assert line.numbers[f"{protocol} balanced"] == pytest.approx(sum(shares) / 3, abs=1e-4)


def test_what_is_missing_is_said(trained, capsys):
    folder, _ = trained
    call(folder, "--pairs", "2", "--list")
    said = capsys.readouterr().out
    assert "tail: 3 of 6 cells, 2 pairs. The second stage serves the tail." in said
    assert [line for line in said.splitlines() if line.startswith("missing")] == [
        f"missing: tiny,{arm},e1,p2" for arm in ("first", "second", "simclr")
    ]


def test_measured_cells_need_no_folder_but_a_first_stage_its_weights(trained, tmp_path, capsys):
    """As in a fresh checkout, which has the ledger alone."""
    folder, _ = trained
    out = folder / "cells"
    call(folder, "--root", str(tmp_path), "--out", str(out), "--pairs", "1", "--list")
    assert "missing" not in capsys.readouterr().out
    ledger = (out / "claims_cells.csv").read_text().splitlines(keepends=True)
    (tmp_path / "claims_cells.csv").write_text("".join(x for x in ledger if ",second," not in x))
    call(folder, "--root", str(tmp_path), "--pairs", "1", "--list")
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("missing")] == [
        f"missing: tiny,{arm},e1,p1" for arm in ("first", "second")
    ]


def test_a_setting_that_has_changed_since_is_refused(trained, tmp_path, capsys):
    folder, _ = trained
    changed = write_book(tmp_path, lambda b: b["common"].append("optimizer.lr=0.01"))
    with pytest.raises(SystemExit) as end:
        call(folder, "--file", str(changed))
    assert end.value.code == 2
    assert "trained with other settings than the file has now" in capsys.readouterr().err


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of the trained folder, and a file with another rate for an arm, as a call takes it.

    Its claim "third" needs neither "simclr" nor a cell that is not there.
    """
    folder = shutil.copytree(trained[0], tmp_path / "copy")

    def with_another(arm: str) -> str:
        book = yaml.safe_load((folder / "claims.yaml").read_text())
        book["arms"][arm]["words"].append("optimizer.lr=0.01")
        third = {"name": "third", "ours": "second", "base": "first"}
        book["claims"].append({**book["claims"][1], **third})
        (folder / "other.yaml").write_text(yaml.safe_dump(book))
        return str(folder / "other.yaml")

    return folder, with_another


def test_numbers_of_before_a_change_do_not_count(copied):
    """Whichever claims are chosen, no cell is called by words that it was not trained with."""
    folder, with_another = copied
    before = (folder / "cells/claims_cells.csv").read_bytes()
    call(folder, "--file", with_another("simclr"), "--only", "third", "--limit", "0")
    assert (folder / "cells/claims_cells.csv").read_bytes() == before
    rows = csv.DictReader((folder / "cells/claims.csv").open())
    assert {row["claim"]: row["n"] for row in rows} == {"tail": "0", "plain": "0", "third": "1"}


@pytest.mark.parametrize("older", [False, True])
def test_a_second_stage_of_another_first_is_refused(older, copied, capsys):
    """Once that was moved away, as the message says; notes of before hashes know their first's."""
    folder, with_another = copied
    logs = folder / "cells/cpu/logs"
    notes = json.loads((logs / "tiny,second,e1,p1.json").read_text())
    words = ["--file", with_another("first"), "--only", "tail", "--limit", "0"]
    if older:
        del notes["hash"]
        write_json(logs / "tiny,second,e1,p1.json", notes)
    else:
        shutil.rmtree(folder / "cells/cpu/tiny,first,e1,p1")
        (logs / "tiny,first,e1,p1.json").unlink()
    with pytest.raises(SystemExit):
        call(folder, *words)
    said = capsys.readouterr().err
    assert ("optimizer.lr=0.01" if older else "those of tiny,first,e1,p1, which it") in said


def test_numbers_without_weights_are_no_start(copied, capsys):
    folder, _ = copied
    shutil.rmtree(folder / "cells/cpu/tiny,first,e1,p1/checkpoints")
    shutil.rmtree(folder / "cells/cpu/tiny,second,e1,p1")
    ledger = folder / "cells/claims_cells.csv"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(line for line in lines if ",second," not in line))
    with pytest.raises(SystemExit) as end:
        call(folder, "--pairs", "1")
    assert end.value.code == 2
    assert "tiny,first,e1,p1 is finished and holds no checkpoint" in capsys.readouterr().err


def test_lines_that_came_while_cells_were_trained_are_kept(copied, monkeypatch):
    folder, _ = copied
    kept = read_ledger(folder / "cells")
    line = replace(next(iter(kept.values())), accelerator="cuda", device="a card")

    def meanwhile(*_):
        write_ledger({**kept, line.key: line}, folder / "cells")
        return 0

    monkeypatch.setattr(command, "train", meanwhile)
    call(folder, "--pairs", "2")
    assert read_ledger(folder / "cells")[line.key] == line


def test_time_is_of_trainings_that_were_not_interrupted(copied):
    folder, _ = copied
    file = folder / "cells/cpu/logs/tiny,simclr,e1,p1.json"
    notes = json.loads(file.read_text())
    write_json(file, {**notes, "spells": notes["spells"] * 2})
    call(folder, "--limit", "0")
    found = {line.cell.split(",")[1]: line for line in read_ledger(folder / "cells").values()}
    assert found["simclr"].seconds == ""
    assert float(found["first"].seconds) > 0
    assert found["simclr"].device.startswith("CPU, ")


def test_a_trial_is_judged_by_its_own_epochs(copied):
    """Lines of two epochs, as if they had been trained; none of the file's one."""
    folder, _ = copied
    book = read_book(folder / "claims.yaml")
    (pattern, *_) = read_ledger(folder / "cells").values()
    cells = plan_cells(book, book.claims, Setting(Path(), epochs=2))
    lines = [replace(pattern, cell=cell.name, words=cell.words_hash) for cell in cells]
    write_ledger({line.key: line for line in lines}, folder / "cells")
    call(folder, "--epochs", "2", "--limit", "0")
    rows = list(csv.DictReader((folder / "cells/claims.csv").open()))
    assert {row["n"] for row in rows if row["measure"] == "knn few"} == {"6"}


def test_what_a_second_stage_starts_from_is_part_of_its_words(tmp_path):
    first, second = cells_named(tmp_path, "first", "second", of={"second": "first"})
    other = replace(second, of=replace(first, words=("name=other",)))
    assert len({second.words_hash, other.words_hash, replace(second, of=None).words_hash}) == 3


def test_a_cell_without_its_optimizer_still_evaluates(trained):
    path = trained[0] / "cells/cpu/tiny,simclr,e1,p1"
    cell = Cell(path.name, path.parent, "pretrain", (), "cpu")
    file = path / "checkpoints/last.ckpt"
    file.write_bytes(weights_alone(file))
    (path / "results.json").unlink()
    assert not cell.is_done
    train_and_evaluate(cell)
    assert cell.is_done


def test_an_unknown_claim_is_refused(tmp_path, capsys):
    write_book(tmp_path)
    with pytest.raises(SystemExit) as end:
        call(tmp_path, "--only", "tale")
    assert end.value.code == 2
    assert "unknown claim 'tale'. Did you mean 'tail'?" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    (cell,) = cells_named(tmp_path, "a")
    with pytest.raises(UserError, match="--accelerator cuda: expected a GPU"):
        train_and_evaluate(replace(cell, accelerator="cuda"))


# Several at once


def ends_by_its_name(cell: Cell, parent: int) -> None:
    """A stand-in for a training."""
    cell.path.mkdir(parents=True)
    print("error: bad input" if cell.name == "bad" else "fine")
    if cell.name == "bad":
        raise SystemExit(2)
    if cell.name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_failed_cell_takes_along_only_those_that_need_it(tmp_path):
    needs = {"after": "bad", "later": "good"}
    cells = cells_named(tmp_path, "bad", "after", "killed", "good", "later", of=needs)
    told: list[str] = []
    outcome = Pool(ends_by_its_name, 2, told.append).run(cells)
    assert sorted(outcome.done) == ["good", "later"]
    assert outcome.failed == {
        "bad": "bad input",
        "after": "it needs bad, which failed.",
        "killed": "its process was ended by SIGKILL.",
    }
    assert "failed: bad: bad input" in told
    assert not (tmp_path / "after").exists()
    assert (tmp_path / "logs/good.log").read_text() == "fine\n"


def stops_the_parent(cell: Cell, parent: int) -> None:
    cell.path.mkdir(parents=True)
    os.kill(parent, signal.SIGTERM)
    while True:
        signal.pause()


def test_sigterm_stops_what_runs_and_begins_nothing_more(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    outcome = Pool(stops_the_parent, 1, str).run(cells_named(tmp_path, "a", "b"))
    assert outcome.is_interrupted
    assert outcome.stopped == ["a"]
    assert outcome.left == ["b"]
    assert signal.getsignal(signal.SIGTERM) is before


def waits(cell: Cell, parent: int) -> None:
    time.sleep(60)


def test_time_that_is_up_ends_what_runs(tmp_path):
    outcome = Pool(waits, 1, str).run(cells_named(tmp_path, "a"), limit=0.1)
    assert (outcome.stopped, outcome.is_interrupted) == (["a"], False)


def tells_its_group(cell: Cell, parent: int) -> None:
    print(os.getpgid(0) == os.getpid(), os.getpgid(parent) == os.getpid())


def test_a_signal_to_the_whole_group_is_for_the_parent(tmp_path):
    """It passes it on once; a second one would end a training without saving."""
    Pool(tells_its_group, 1, str).run(cells_named(tmp_path, "a"))
    assert (tmp_path / "logs/a.log").read_text() == "True False\n"


def test_a_cell_that_another_call_trains_is_left_alone(tmp_path):
    a, b, c = cells_named(tmp_path, "a", "b", "c", of={"b": "a"})
    a.log.parent.mkdir(parents=True)
    a.log.write_text("in training\n")
    with open(a.lock, "w") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        outcome = Pool(ends_by_its_name, 1, str).run([a, b, c])
    assert (outcome.elsewhere, outcome.done, outcome.failed) == (["a", "b"], ["c"], {})
    assert a.log.read_text() == "in training\n"
    assert Pool(ends_by_its_name, 1, str).run([a, b]).done == ["a", "b"]


def test_without_time_nothing_is_begun(tmp_path):
    outcome = Pool(ends_by_its_name, 1, str).run(cells_named(tmp_path, "a"), limit=0.0)
    assert outcome.left == ["a"]
    assert not (tmp_path / "a").exists()


# Archives


def fill(cell: Cell, finished: bool, size: int = 1000) -> None:
    facts = {"finished": "now"} if finished else {}
    write_json(cell.path / "run.json", facts)
    checkpoints = cell.path / "checkpoints"
    checkpoints.mkdir()
    content = {"state_dict": {"w": torch.zeros(size // 4)}, "optimizer_states": [0], "epoch": 1}
    torch.save(content, checkpoints / "last.ckpt")


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A cell that others need, one that is done, one that is open, one that was not begun."""
    cells = cells_named(tmp_path / "cpu", "first", "done", "open", "new", of={"new": "first"})
    for cell in cells[:3]:
        fill(cell, cell.name != "open", 30_000)
    monkeypatch.setattr(Cell, "is_done", property(lambda cell: cell.name in ("first", "done")))
    return cells


def test_open_cells_go_whole_and_finished_ones_without_the_optimizer(tmp_path, begun):
    (file,), absent = pack(begun, tmp_path, tmp_path / "x.tar")
    assert absent == []
    with tarfile.open(file) as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "there", filter="data")
    assert [n for n in names if n.endswith(".ckpt")] == [
        f"cpu/{name}/checkpoints/last.ckpt" for name in ("open", "first", "done")
    ]
    kept = {
        name: torch.load(tmp_path / f"there/cpu/{name}/checkpoints/last.ckpt", weights_only=True)
        for name in ("open", "done")
    }
    assert "optimizer_states" in kept["open"]
    assert set(kept["done"]) == {"state_dict", "epoch"}


def test_a_cell_that_was_stopped_within_an_epoch_goes_with_its_place(tmp_path, begun):
    place = begun[2].path / "checkpoints/stopped.ckpt"
    place.write_bytes(b"the place")
    (file,), _ = pack(begun, tmp_path, tmp_path / "x.tar")
    with tarfile.open(file) as tar:
        names = [name for name in tar.getnames() if "/open/checkpoints/" in name]
        assert names == ["cpu/open/checkpoints/stopped.ckpt"]
        assert tar.extractfile(names[0]).read() == b"the place"


def test_archives_have_a_size_and_say_what_found_no_room(tmp_path, begun):
    files, absent = pack(begun, tmp_path, tmp_path / "x.tar", megabytes=0.05, most=2)
    assert [file.name for file in files] == ["x.tar", "x.2.tar"]
    assert all(file.stat().st_size <= 50_000 for file in files)
    assert absent == ["cpu/done/checkpoints/last.ckpt"]


def test_numbers_of_the_command_line_are_checked():
    with pytest.raises(argparse.ArgumentTypeError, match="a whole number of 1 or more"):
        train.whole("0")
