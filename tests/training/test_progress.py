# SPDX-License-Identifier: MIT
"""The bar: what it says fits the terminal, and nothing is said that is not known yet."""

import io

import pytest
from rich.console import Console

from ltplugins.training.progress import make_bar

FACTS = ["epoch 12/100", "loss 3.214", "512 img/s"]


def shown(width, facts, steps=()):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    bar = make_bar(console)
    task = bar.add_task("gh_colt_simclr", total=1000, facts=facts)
    for step in steps:
        bar.update(task, completed=step)
    with console.capture() as capture:
        console.print(bar.get_renderable())
    return capture.get().rstrip("\n")


def test_no_loss_before_the_first_one():
    line = shown(100, ["epoch 1/100"])
    assert "nan" not in line
    assert "elapsed" in line
    assert "left" not in line  # not known yet


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_it_is_one_line_of_whole_words(width):
    line = shown(width, FACTS, (10, 20, 30))
    assert "\n" not in line
    assert len(line) <= width
    assert "…" not in line
    assert "epoch 12/100" in line
    if width >= 60:
        assert " left" in line  # after the time that it labels
    if width >= 100:
        assert all(fact in line for fact in FACTS)
        assert " elapsed" in line
