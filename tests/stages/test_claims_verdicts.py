# SPDX-License-Identifier: MIT
"""From cells' numbers to verdicts: which cells pair up, and files that stay as they are."""

import csv
import dataclasses
from pathlib import Path

import pytest

from ltplugins.core.errors import UserError
from ltplugins.report.pages.claims import write_claims
from ltplugins.stages.claims.book import read_book
from ltplugins.stages.claims.cells import Setting, plan_cells
from ltplugins.stages.claims.ledger import NAME, Line, read_ledger, write_ledger
from ltplugins.stages.claims.verdicts import judge, judge_tails
from tests.kit.claims import write_book

SPREAD = (0.01, 0.02, 0.03, 0.02, 0.01, 0.03)  # of the differences, pair by pair


@pytest.fixture
def book(tmp_path):
    return read_book(write_book(tmp_path))


def lines(book, accelerator="cpu", words=(), shift=0.0):
    """Cells of the claim "tail": the second stage is ahead in kNN by ``SPREAD`` and ``shift``."""
    setting = Setting(Path(), accelerator, words)
    made = []
    for cell in plan_cells(book, book.chosen(["tail"]), setting):
        _, arm, _, pair = cell.name.split(",")
        number = int(pair[1:]) - 1
        base = 0.5 + number / 10
        ours = base + shift + SPREAD[number]
        made.append(
            Line(
                accelerator=accelerator,
                settings=setting.text,
                cell=cell.name,
                words=cell.words_hash,
                device={"cpu": "CPU", "cuda": "a card"}[accelerator],
                commit="abc",
                split=f"split {pair}",
                test="test",
                steps={"simclr": "40", "first": "50", "second": "60"}[arm],
                seconds={"simclr": "10", "first": "", "second": "15"}[arm],
                numbers={"knn few": base if arm == "simclr" else ours, "knn balanced": base}
                | ({"classifier balanced": base - 0.1} if arm == "second" else {}),
            )
        )
    return {line.key: line for line in made}


def rows_of(book, ledger, claim="tail"):
    return [row for row in judge(book, ledger) if row.claim == claim]


def test_a_claim_is_judged_pair_by_pair(book):
    knn, classifier = rows_of(book, lines(book))
    assert (knn.measure, knn.verdict, knn.found.n, knn.pairs) == ("knn few", "holds", 6, 6)
    assert knn.found.effect == pytest.approx(0.02)
    assert knn.ours.mean == pytest.approx(0.77)
    assert knn.base.mean == pytest.approx(0.75)
    cells = knn.cells()
    assert (cells["effect"], cells["ours"], cells["base"]) == (
        "+2.00",
        "second 77.0",
        "simclr 75.0",
    )
    assert (cells["steps"], cells["device"]) == ("50 + 60 / 40", "CPU")
    assert cells["time"] == "n/a"  # the first stage was interrupted
    # The base is judged by another protocol; differences that are all alike leave no doubt.
    assert classifier.measure == "classifier/knn balanced"
    assert classifier.found.effect == pytest.approx(-0.1)
    assert classifier.verdict == "does not"


def test_a_claim_of_less_is_judged_the_other_way_round(tmp_path):
    lower = lambda book: book["claims"][0].update(direction="lower")  # noqa: E731
    book = read_book(write_book(tmp_path, lower))
    knn, classifier = rows_of(book, lines(book))
    assert (knn.verdict, classifier.verdict) == ("does not", "holds")


def test_what_an_arm_starts_from_is_part_of_its_cost(book):
    """A second stage of 60 steps after 50 took 25 seconds, not 15."""
    whole = {
        key: dataclasses.replace(line, seconds=line.seconds or "10")
        for key, line in lines(book).items()
    }
    assert rows_of(book, whole)[0].cells()["time"] == "2.50"
    for key in [key for key in whole if key[2].startswith("tiny,first")]:
        del whole[key]
    assert rows_of(book, whole)[0].found.n == 0  # nobody knows what it starts from


def test_without_cells_all_is_unknown(book):
    assert {(row.verdict, row.found.n, row.found.effect) for row in judge(book, {})} == {
        ("unknown", 0, None)
    }
    assert len(judge(book, {})) == sum(len(claim.measures) for claim in book.claims)


def test_five_pairs_are_too_few(book):
    ledger = lines(book)
    del ledger["cpu", "", "tiny,simclr,e1,p3"]
    knn, _ = rows_of(book, ledger)
    assert (knn.verdict, knn.found.n) == ("unknown", 5)


@pytest.mark.parametrize("change", [{"words": "other"}, {"split": "other"}, {"test": "other"}])
def test_cells_of_other_settings_or_data_are_not_compared(book, change):
    ledger = lines(book)
    key = ("cpu", "", "tiny,simclr,e1,p3")
    ledger[key] = dataclasses.replace(ledger[key], **change)
    assert rows_of(book, ledger)[0].found.n == 5


def test_devices_and_words_are_not_mixed(book):
    on_card = lines(book, "cuda", shift=0.1)
    halves = lines(book, "cuda", ("precision=bf16-mixed",), shift=-0.1)
    del on_card["cuda", "", "tiny,second,e1,p6"]
    found = {
        (row.device, row.settings): (row.found.n, row.cells()["effect"], row.verdict)
        for row in rows_of(book, {**lines(book), **on_card, **halves})
        if row.measure == "knn few"
    }
    assert found == {
        ("CPU", ""): (6, "+2.00", "holds"),
        ("a card", ""): (5, "+11.80", "unknown"),
        ("a card", "precision=bf16-mixed"): (6, "−8.00", "does not"),
    }


def test_the_ledger_is_read_as_it_was_written(book, tmp_path):
    ledger = lines(book)
    write_ledger(ledger, tmp_path)
    first = (tmp_path / NAME).read_bytes()
    again = read_ledger(tmp_path)
    assert {key: dict(line.numbers) for key, line in again.items()} == {
        key: pytest.approx(line.numbers) for key, line in ledger.items()
    }
    write_ledger(again, tmp_path)
    assert (tmp_path / NAME).read_bytes() == first
    assert judge(book, again) == judge(book, read_ledger(tmp_path))


def rotated(ledger):
    """Cells that know their classes: each of four has 10, 100 and 1,000 images once, and more."""
    for number, (key, line) in enumerate(ledger.items()):
        images = tuple(10 ** (1 + (number // 3 + k) % 4) for k in range(4))
        shares = tuple(0.2 + 0.1 * k + 0.01 * len(str(n)) for k, n in enumerate(images))
        ledger[key] = dataclasses.replace(line, images=images, by_class={"knn": shares})
    return ledger


def test_what_the_tail_costs_each_arm(book, tmp_path):
    ledger = rotated(lines(book))
    by_arm = {row.arm: row for row in judge_tails(book, ledger)}
    assert set(by_arm) == {"simclr", "first", "second"}
    row = by_arm["simclr"]
    assert (row.data, row.epochs, row.runs, row.most, row.fewest) == ("tiny", 1, 6, 10000, 10)
    assert row.costs["knn"].n == 4
    assert row.costs["knn"].effect == pytest.approx(0.03)  # three factors of ten
    write_ledger(ledger, tmp_path)
    again = judge_tails(book, read_ledger(tmp_path))
    assert [row.cells() for row in again] == [row.cells() for row in judge_tails(book, ledger)]
    page = write_claims(judge(book, ledger), tmp_path, again)
    text = (tmp_path / "claims.md").read_text().splitlines()
    assert "| simclr | 1 | 6 | +3.00 (+3.00 to +3.00) |" in text
    assert "10,000 to 10 images a class; CPU." in text
    assert "What the tail costs" in page.read_text()


def test_cells_that_cannot_tell_what_the_tail_costs(book, tmp_path):
    """Old lines, those of other settings, a protocol that one cell lacks, two cells alone."""
    assert judge_tails(book, lines(book)) == []
    other = {
        key: dataclasses.replace(line, words="other") for key, line in rotated(lines(book)).items()
    }
    assert judge_tails(book, other) == []
    ledger = rotated(lines(book))
    for key in [key for key in ledger if ",first," in key[2]]:
        ledger[key] = dataclasses.replace(ledger[key], by_class={})
    for key in [key for key in ledger if ",simclr," in key[2]][2:]:
        del ledger[key]
    assert [row.arm for row in judge_tails(book, ledger)] == ["second"]
    write_claims(judge(book, lines(book)), tmp_path)
    assert "What the tail costs" not in (tmp_path / "claims.md").read_text()


def test_a_ledger_of_another_form_is_refused(tmp_path):
    (tmp_path / NAME).write_text("cell,few\na,1\n")
    with pytest.raises(UserError, match="expected the columns accelerator, settings, cell"):
        read_ledger(tmp_path)


def test_the_files_say_what_the_rows_say(book, tmp_path):
    rows = judge(book, lines(book))
    page = write_claims(rows, tmp_path)
    names = ("claims.md", "claims.csv", "claims.html")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    write_claims(rows, tmp_path)
    assert before == {name: (tmp_path / name).read_bytes() for name in names}

    text = (tmp_path / "claims.md").read_text()
    assert "Of 3 measures of 2 claims: 1 holds, 1 does not, 1 unknown." in text
    assert (
        "| tail | The second stage serves the tail | CPU | 6 of 6 | knn few: holds (+2.00); "
        in text
    )
    assert "| plain | Labels are of no use | CPU | 0 of 6 | knn overall: unknown |" in text
    write_claims(judge(book, {}), tmp_path / "none")
    none = (tmp_path / "none" / "claims.md").read_text()
    assert "| plain | Labels are of no use | n/a | 0 of 6 | unknown: no pair yet |" in none
    assert "## tail: The second stage serves the tail" in text
    assert "## plain" not in text  # its measure is not known
    line = next(x for x in text.splitlines() if x.startswith("| knn few |"))
    assert line.startswith("| knn few | **holds** | +2.00 | +1.06 to +2.94 | 0.031 | 6 of 6 |")
    with open(tmp_path / "claims.csv", newline="") as f:
        table = list(csv.DictReader(f))
    assert table[1]["effect"] == "-10.00"
    assert [row["verdict"] for row in table] == ["holds", "does not", "unknown"]
    shown = page.read_text()
    assert "<svg" in shown
    assert "+1.06 to +2.94" in shown
    assert "http" not in shown


def test_a_page_without_numbers_has_no_picture(book, tmp_path):
    assert "<svg" not in write_claims(judge(book, {}), tmp_path).read_text()
