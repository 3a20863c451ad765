# SPDX-License-Identifier: MIT
"""``make soak`` in short: its faults are met, a loss is told, what is done is not done again."""

import json
import sys
from pathlib import Path

import pytest
import torch

from ltplugins.runs.seal import save_sealed
from scripts.soak.children import Ended
from scripts.soak.ledger import EQUAL, LOST, REFUSED, Case, Ledger
from scripts.soak.page import write_page
from scripts.soak.tasks import Bench, Task, is_same
from tests.kit import forked
from tests.kit.paths import ROOT


@pytest.mark.slow
def test_a_case_of_each(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    words = ["--only", "kills", "damage", "images", "--cases", "1", "--methods", "simclr"]
    places = ["--engines", "batched", "--folder", str(tmp_path), "--page", str(page)]
    command = [sys.executable, "-m", "scripts.soak.all", *words, *places]
    done = forked.run(command, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = [json.loads(line) for line in (tmp_path / "cases.jsonl").open()]
    assert [(case["part"], case["verdict"]) for case in cases] == [
        ("kills", EQUAL),
        ("damage", EQUAL),
        ("images", EQUAL),
    ]
    text = page.read_text()
    assert "| `kill -9`, engine `batched` | 1 | 1 | 0 | 0 |" in text
    assert "| pretrain: `run.json` | 1 | 1 | 0 | 0 | `run.json cannot be read" in text
    assert "0 of 3 cases." in text


def ended(path: Path, step: int) -> Path:
    content = {
        "state_dict": {"w": torch.ones(1)},
        "optimizer_states": [],
        "lr_schedulers": [{"a": 1}],
    }
    save_sealed({**content, "global_step": step}, path / "checkpoints/last.ckpt")
    return path


def test_what_is_a_loss(tmp_path: Path) -> None:
    one, same, other = (ended(tmp_path / n, s) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    bench, task = Bench(tmp_path), Task("a", lambda out: None, is_same)

    def verdict(path: Path, code: int | None, said: str = "", may_refuse: bool = True) -> str:
        return bench.end_of(task, one, path, Ended(code, said), may_refuse)[0]

    assert verdict(same, 0) == EQUAL
    assert verdict(other, 0) == LOST
    assert verdict(same, 0, "Traceback (most recent call last)") == LOST
    assert verdict(same, 2, "error: it is damaged") == REFUSED
    assert verdict(same, 2, "error: it is damaged", may_refuse=False) == LOST
    assert verdict(same, 2, "error: one\nerror: two") == LOST
    assert verdict(same, 1) == verdict(same, None) == verdict(same, -9) == LOST


def test_half_a_line_is_done_again_and_a_loss_is_on_the_page(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "cases.jsonl")
    ledger.add(Case("damage", "file", "cut", EQUAL, "WARNING  it | was cut"))
    ledger.add(Case("damage", "file", "empty", LOST, what="exit 1"))
    ledger.path.write_bytes(ledger.path.read_bytes() + b'{"part": "damage", "row"')
    again = Ledger(ledger.path)
    assert again.cases == ledger.cases
    assert again.has("damage", "file", "cut") and not again.has("damage", "file", "flipped")
    again.add(Case("damage", "file", "flipped", REFUSED))
    assert len(Ledger(ledger.path).cases) == 3
    assert Ledger(ledger.path, "another version").cases == []
    write_page(again, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "| file | 3 | 1 | 1 | 1 | `it / was cut` |" in text
    assert "1 of 3 cases.\n- file, empty: exit 1" in text
