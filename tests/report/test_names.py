# SPDX-License-Identifier: MIT
"""Names come from elsewhere: none is a command to a terminal, to rich or to Markdown."""

import io
import logging

import numpy as np
import pytest
from rich.console import Console

from ltplugins.core.console import make_console, print_error
from ltplugins.core.markdown import plain
from ltplugins.report.evaluated import RunResult
from ltplugins.report.pages.tables import markdown_table
from ltplugins.report.table import summarise
from ltplugins.report.terminal import show_results
from ltplugins.stages.logs import set_up_logging
from ltplugins.training.progress import make_bar
from tests.report.test_table import results

# Marks of rich, what a terminal obeys, what is no text, what turns the direction of writing.
HOSTILE = (
    "[/b]",
    "[red]x[/red]",
    "\x1b[2J\x1b]0;t\x07",
    "a\\[/b]",
    ":file_folder:",
    "\udce9",
    "\u202egpj",
)
SHOWN = {
    "\x1b[2J\x1b]0;t\x07": "\\x1b[2J\\x1b]0;t\\x07",
    "\udce9": "\\udce9",
    "\u202egpj": "\\u202egpj",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_terminal_shows_a_name_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print(f"written: {name}", highlight=False)
    print_error(f"no such file: {name}")
    shown = SHOWN.get(name, name)
    out, err = capsys.readouterr()
    assert (out, err) == (f"written: {shown}\n", f"error: no such file: {shown}\n")


@pytest.mark.parametrize("name", HOSTILE)
def test_so_do_its_table_and_its_bar(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_results([RunResult(name, results(0.1))])
    assert SHOWN.get(name, name) in capsys.readouterr().out
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    with make_bar(console) as bar:
        bar.add_task("[/b]", total=1, facts=["[/b] of it"])
    assert "[/b]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_and_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("ltplugins")
    before, logger.handlers = logger.handlers, []
    try:
        set_up_logging()
        logger.warning("%s", HOSTILE[2])
    finally:
        logger.handlers = before
    assert capsys.readouterr().err == f"WARNING  {SHOWN[HOSTILE[2]]}\n"


def test_markdown_obeys_no_random_name() -> None:
    """Each mark that Markdown knows has a backslash before it, wherever it stands."""
    letters = list("ab_*`[]()<>|\\#-+=~&$!1. \n\t\x1b")
    rng = np.random.default_rng(0)
    for _ in range(2000):
        text = "".join(rng.choice(letters, rng.integers(1, 12)))
        shown = plain(text)
        assert "\n" not in shown and "\x1b" not in shown
        bare = shown.replace("\\\\", "")
        for mark in "`*[]|~$":
            assert bare.count(mark) == bare.count(f"\\{mark}"), (text, shown)
        assert "<" not in shown and ">" not in shown, (text, shown)


def test_a_report_of_such_runs_has_rows_of_one_width() -> None:
    names = ("a | b", "x\n| y | z", "![](http://127.0.0.1/x.png)", "<img src=x>")
    for section in summarise([RunResult(name, results(0.1)) for name in names]):
        lines = markdown_table(section)
        assert len(lines) >= 2 + len(names)
        widths = {line.replace("\\|", "").count("|") for line in lines}
        assert len(widths) == 1
        assert not any("<img" in line.replace("\\<", "") or "![](" in line for line in lines)
