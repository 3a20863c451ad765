# SPDX-License-Identifier: MIT
"""The demo's advice: commands that work after it, in their order."""

import re
import shlex

import pytest

from ltplugins.core.errors import UserError
from ltplugins.stages import demo as stage


@pytest.fixture
def untrained(monkeypatch):
    """A demo that trains nothing; the folders and words that it would have used."""
    used = []
    monkeypatch.setattr(stage, "pretrain", lambda cfg: used.append(cfg))
    monkeypatch.setattr(stage, "evaluate", lambda cfg: None)
    monkeypatch.setattr(stage, "report", lambda runs, out, title: out / "report.html")
    return used


def test_what_it_advises_is_another_order_in_another_folder(tmp_path, untrained, capsys):
    out = tmp_path / "my demo"
    stage.demo(out, class_order=3, seed=1, epochs=2)
    text = capsys.readouterr().out
    again = shlex.split(re.search(r"ltplugins demo .*", text)[0])
    both = shlex.split(re.search(r"ltplugins report .*", text)[0])
    options = dict(zip(again[2::2], again[3::2], strict=True))
    assert options["--class-order"] == "4"
    assert (options["--seed"], options["--epochs"]) == ("1", "2")
    assert options["--out"] == f"{out}-order-4"
    assert both[2:4] == [str(out), options["--out"]]
    assert both[5] not in (str(out), options["--out"])


def test_a_runs_folder_is_refused(tmp_path, untrained):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"--out: expected a folder for the demo's runs, got"):
        stage.demo(tmp_path)
    assert untrained == []
