# SPDX-License-Identifier: MIT
"""Rows, spreads, differences and what may be called best, by hand."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from ltplugins.core.errors import UserError
from ltplugins.eval.results import GroupMembers, ProtocolResult, Scores, Sizes, Stat
from ltplugins.report.cells import METRICS, Cell, Row, mark_best, proportion_error, spread_error
from ltplugins.report.evaluated import RunResult, group_runs
from ltplugins.report.table import spread_note, summarise
from ltplugins.report.terminal import results_tables, show_results


def results(few: float | None, overall: float = 0.6, std: float | None = None) -> Scores:
    """The least that a report needs; three classes, one protocol."""
    groups = {"many": 0.8, "medium": 0.5, "few": few, "group_std": 0.1}
    entry = ProtocolResult(
        kind="knn",
        description="kNN",
        settings={},
        n_train=30,
        seeds=[],
        n=1,
        overall=Stat(overall, std, 1),
        balanced=Stat(None, None, 0),
        class_std=Stat(None, None, 0),
        groups={"tercile": {name: Stat(mean, std, 1) for name, mean in groups.items()}},
        per_class=[0.8, 0.5, few],
    )
    return Scores(
        protocols={"knn_k20_T0.07": entry},
        groups={"tercile": GroupMembers("thirds", [0], [1], [2] if few is not None else [])},
        class_counts=[100, 10, 1],
        sizes=Sizes(train=111, probe=30, test=300),
        notes=[],
    )


def row(name: str, few: Cell, group_std: Cell | None = None) -> Row:
    cells = {metric: Cell(None) for metric in METRICS} | {"few": few}
    return Row(name, 3, cells | ({"group_std": group_std} if group_std else {}))


def test_text_of_cells() -> None:
    assert Cell(0.6344, 0.0123).text() == "63.4 ± 1.2"
    assert Cell(0.6344).text() == "63.4"
    assert Cell(None).text() == "n/a"
    assert Cell(0.02, 0.01).text(signed=True) == "+2.0 ± 1.0"
    assert Cell(-0.02).text(signed=True) == "\N{MINUS SIGN}2.0"


def test_best_needs_a_lead_beyond_either_spread() -> None:
    clear = [row("a", Cell(0.50, 0.01)), row("b", Cell(0.55, 0.02))]
    mark_best(clear)
    assert [r.cells["few"].best for r in clear] == [False, True]
    close = [row("a", Cell(0.50, 0.06)), row("b", Cell(0.55, 0.01))]
    mark_best(close)
    assert not any(r.cells["few"].best for r in close)
    single = [row("a", Cell(0.50)), row("b", Cell(0.99, 0.01))]
    mark_best(single)
    assert not any(r.cells["few"].best for r in single)
    alone = [row("a", Cell(0.50, 0.01)), row("b", Cell(None))]
    mark_best(alone)
    assert not any(r.cells["few"].best for r in alone)


def test_best_needs_a_lead_beyond_the_test_sets_own_error() -> None:
    """Of 96 images a share of 60 % is known to 4.9 points, a difference to 6.9."""
    error = proportion_error(0.6, 96)
    assert error == pytest.approx(math.sqrt(0.6 * 0.4 / 96), abs=0.002)
    for lead, is_best in ((0.13, False), (0.15, True)):
        rows = [
            row("a", Cell(0.6, 0.01, error=error)),
            row("b", Cell(0.6 + lead, 0.01, error=error)),
        ]
        mark_best(rows)
        assert rows[1].cells["few"].best == is_best
    assert proportion_error(1.0, 96) > 0.01  # all hit is not certain
    assert proportion_error(None, 96) == proportion_error(0.5, 0) == 0


def test_errors_are_of_each_groups_images() -> None:
    given = replace(results(0.3), test_counts=[60, 96, 24])
    [section] = summarise([RunResult("a", given)])
    cells = section.rows[0].cells
    assert cells["few"].error == proportion_error(0.3, 24)
    assert cells["medium"].error == proportion_error(0.5, 96)
    assert cells["overall"].error == proportion_error(0.6, 300)  # as sizes say
    # Of older files: 300 images, alike over three classes.
    [section] = summarise([RunResult("a", results(0.3))])
    assert section.rows[0].cells["few"].error == proportion_error(0.3, 100)


def test_the_error_of_the_group_std_is_that_of_many_drawn_test_sets() -> None:
    shares, images = np.array([0.8, 0.5, 0.3]), 100
    drawn = np.random.default_rng(0).binomial(images, shares, (20_000, 3)) / images
    groups = [Cell(p, error=proportion_error(p, images)) for p in shares]
    assert spread_error(groups) == pytest.approx(drawn.std(axis=1).std(), rel=0.05)
    alike = [Cell(0.5, error=0.05)] * 3
    assert spread_error(alike) == pytest.approx(0.05)
    assert spread_error([Cell(0.5, error=0.05), Cell(None)]) == 0


def test_a_row_says_on_which_bank_it_was_scored() -> None:
    other = results(0.4)
    [(name, entry)] = other.protocols.items()
    other = replace(other, protocols={name: replace(entry, description="kNN on others")})
    [section] = summarise([RunResult("a", results(0.3)), RunResult("b", other)])
    assert section.description == "a: kNN; b: kNN on others"


def test_lower_group_std_is_better() -> None:
    rows = [row("a", Cell(None), Cell(0.2, 0.01)), row("b", Cell(None), Cell(0.1, 0.01))]
    mark_best(rows)
    assert [r.cells["group_std"].best for r in rows] == [False, True]


def test_runs_of_one_group_are_averaged_and_paired() -> None:
    runs = [
        RunResult("s0", results(0.30), "simclr", "p0"),
        RunResult("s1", results(0.50), "simclr", "p1"),
        RunResult("g1", results(0.58), "gh", "p1"),
        RunResult("g0", results(0.34), "gh", "p0"),
    ]
    [section] = summarise(runs)
    assert [(r.name, r.num_runs) for r in section.rows] == [("simclr", 2), ("gh", 2)]
    assert section.rows[0].cells["few"].text() == "40.0 ± 14.1"
    assert section.rows[1].cells["few"].text() == "46.0 ± 17.0"
    assert not section.rows[1].cells["few"].best
    # The pairs differ by 8 and 4 points: 6.0 ± 2.8, although the rows spread by 14 and 17.
    [difference] = section.differences
    assert difference.name == "gh \N{MINUS SIGN} simclr"
    assert difference.cells["few"].text(signed=True) == "+6.0 ± 2.8"


def test_no_difference_without_two_pairs() -> None:
    runs = [
        RunResult("s0", results(0.3), "simclr", "p0"),
        RunResult("g0", results(0.4), "gh", "p0"),
    ]
    assert summarise(runs)[0].differences == []


def test_missing_protocol_and_empty_group_stay_visible() -> None:
    other = results(0.4)
    other = replace(other, protocols={"linear_full": other.protocols["knn_k20_T0.07"]})
    sections = summarise([RunResult("a", results(None)), RunResult("b", other)])
    assert [s.protocol for s in sections] == ["knn_k20_T0.07", "linear_full"]
    assert sections[0].rows[0].cells["few"].text() == "n/a"
    assert sections[0].rows[1].cells["overall"].text() == "n/a"


def test_differences_start_at_the_first_row_that_has_the_protocol() -> None:
    runs = [RunResult(f"s{i}", results(0.30), "simclr", f"p{i}") for i in range(2)]
    for method, few in (("gml", 0.40), ("iccl", 0.45)):
        for i in range(2):
            found = results(few)
            found.protocols["classifier"] = found.protocols["knn_k20_T0.07"]
            runs.append(RunResult(f"{method}{i}", found, method, f"p{i}"))
    knn, classifier = summarise(runs)
    minus = "\N{MINUS SIGN}"
    assert [d.name for d in knn.differences] == [f"gml {minus} simclr", f"iccl {minus} simclr"]
    assert [d.name for d in classifier.differences] == [f"iccl {minus} gml"]
    assert classifier.differences[0].cells["few"].text(signed=True) == "+5.0 ± 0.0"
    assert classifier.rows[0].cells["overall"].text() == "n/a"


def test_spread_note_says_what_the_spread_is() -> None:
    single = [RunResult("a", results(0.3)), RunResult("b", results(0.3))]
    assert "on one training run each" in spread_note(summarise(single))
    several = [RunResult("a", results(0.3), "x"), RunResult("b", results(0.3), "x")]
    assert spread_note(summarise(several)).endswith("over training runs.")
    assert "where n is given" in spread_note(
        summarise([*several, RunResult("c", results(0.3), "y")])
    )


def test_runs_that_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="no runs to report on"):
        group_runs([])
    with pytest.raises(UserError, match="two runs are called 'a'"):
        group_runs([RunResult("a", results(0.3)), RunResult("a", results(0.3))])
    bigger = replace(results(0.3), class_counts=[1, 2, 3, 4])
    with pytest.raises(UserError, match="same number of classes, got a: 3, b: 4"):
        group_runs([RunResult("a", results(0.3)), RunResult("b", bigger)])
    other = results(0.3)
    other = replace(other, groups={"threshold": other.groups["tercile"]})
    with pytest.raises(UserError, match=r"no group rule in common \(a: tercile; b: threshold\)"):
        summarise([RunResult("a", results(0.3)), RunResult("b", other)])


def test_terminal_table() -> None:
    runs = [RunResult("simclr", results(0.3, std=0.01)), RunResult("gh", results(None, std=0.01))]
    text = _print(results_tables(runs, 120), 120)
    assert "knn_k20_T0.07" in text and "30.0 ± 1.0" in text and "n/a" in text
    assert text.index("simclr") < text.index("gh")


def _print(tables: list[Table], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    for table in tables:
        console.print(table)
    return console.export_text()


def _long_names() -> list[RunResult]:
    return [
        RunResult(
            f"gh_colt_simclr (lr=0.{m}) of some sweep/{s}",
            results(0.3 + 0.1 * s),
            f"gh_colt_{m}_simclr, lr=0.5, temperature=0.{m}",
            f"p{s}",
        )
        for m in range(13)
        for s in range(2)
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 300])
def test_numbers_are_never_cut(width: int) -> None:
    tables = results_tables(_long_names(), width)
    assert len(tables) == (1 if width == 300 else 2)
    text = _print(tables, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert text.count("35.0 ± 7.1") == 13


def test_a_log_file_gets_the_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    """There is no terminal: no width, nothing to fold."""
    show_results(_long_names())
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if "temperature=0.12 (n=2)" in line]
    assert len(rows) == 1
    assert "35.0 ± 7.1" in rows[0] and "10.0 ± 0.0" in rows[0]
    assert max(map(len, lines)) > 100
