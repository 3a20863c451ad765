# SPDX-License-Identifier: MIT
"""The demo's advice: commands that work after it, in their order."""

import re
import shlex

import pytest

from ltplugins import cli
from ltplugins.core.errors import UserError
from ltplugins.stages import demo as stage


@pytest.fixture
def untrained(monkeypatch):
    """A demo that trains nothing; the folders and words that it would have used."""
    used, evaluated = [], []
    monkeypatch.setattr(stage, "pretrain", lambda cfg: used.append(cfg))
    monkeypatch.setattr(stage, "evaluate", lambda cfg: evaluated.append(cfg))
    monkeypatch.setattr(stage, "report", lambda runs, out, title: out / "report.html")
    return used


def test_what_it_advises_is_another_order_in_another_folder(tmp_path, untrained, capsys):
    out = tmp_path / "my demo"
    stage.demo(out, repeated={"class-order": 3}, seed=1, epochs=2)
    text = capsys.readouterr().out
    again = shlex.split(re.search(r"ltplugins demo .*", text)[0])
    both = shlex.split(re.search(r"ltplugins report .*", text)[0])
    options = dict(zip(again[2::2], again[3::2], strict=True))
    assert options["--class-order"] == "4"
    assert (options["--seed"], options["--epochs"]) == ("1", "2")
    assert options["--out"] == f"{out}-order-4"
    assert both[2:4] == [str(out), options["--out"]]
    assert both[5] not in (str(out), options["--out"])


def test_the_demo_of_the_earth(tmp_path, untrained, capsys):
    stage.demo(tmp_path / "earth", data="land", repeated={"fold": 4})
    assert [cfg.method for cfg in untrained] == ["simclr", "gh_simclr"]
    for cfg in untrained:
        assert (cfg.data.dataset, cfg.data.fold) == ("land_pack", 4)
        assert cfg.augmentations[0].vertical_flip.prob == 0.5
    again = shlex.split(re.search(r"ltplugins demo .*", capsys.readouterr().out)[0])
    assert again[2:] == [
        *("--fold", "0", "--data", "land"),
        *("--out", str(tmp_path / "earth-fold-0")),
    ]


def test_its_sets_are_those_of_the_command():
    demo = cli._commands(cli._parser())["demo"]
    (data,) = [action for action in demo._actions if action.dest == "data"]
    assert tuple(data.choices) == tuple(stage.SETS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fold", "1"], "--fold: expected nothing with --data fashion, got 1. Set --class-order"),
        (["--data", "land", "--class-order", "1"], "--class-order: expected nothing with --data l"),
        (["--data", "land", "--fold", "5"], "--fold: expected a number from 0 to 4, got 5"),
    ],
)
def test_a_repetition_of_another_set_is_refused(words, message, tmp_path, untrained, capsys):
    with pytest.raises(SystemExit) as told:
        cli.main(["demo", *words, "--out", str(tmp_path / "x")])
    assert told.value.code == 2 and message in capsys.readouterr().err
    assert untrained == [] and not list(tmp_path.iterdir())


def test_a_runs_folder_is_refused(tmp_path, untrained):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"--out: expected a folder for the demo's runs, got"):
        stage.demo(tmp_path)
    assert untrained == []
