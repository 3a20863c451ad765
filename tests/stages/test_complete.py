# SPDX-License-Identifier: MIT
"""Tab completion: what a shell is offered for a word that is begun."""

import os
import subprocess
import sys

import pytest

from ltplugins.stages.complete import words


def test_keys_choices_and_listed_values():
    assert "method=" in words("pretrain", "me")
    assert {"max_epochs=", "max_steps="} <= set(words("pretrain", "max_"))
    assert words("pretrain", "optimizer.l") == ["optimizer.lr="]
    assert words("pretrain", "logger=t") == ["logger=tensorboard"]
    assert "data.engine=dali" in words("pretrain", "data.engine=")
    assert "schedule=imagenet" in words("pretrain", "schedule=i")
    assert words("pretrain", "checkpoint.enabled=") == [
        "checkpoint.enabled=false",
        "checkpoint.enabled=true",
    ]
    assert "device=" in words("evaluate", "")
    assert "gamma=" in words("balance", "")
    assert words("finetune", "layer_d") == ["layer_decay="]
    assert words("pretrain", "nothing") == []


def test_methods_are_those_that_can_be_trained():
    offered = words("pretrain", "method=")
    assert {"method=simclr", "method=gh_colt_byol", "method=mttv"} <= set(offered)
    assert "method=gh" not in offered


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ltplugins demo --class", "--class-order"),
        ("ltplugins pretrain seed=1 method=gh_sims", "method=gh_simsiam"),
        ("ltplugins evaluate runs/x dev", "device="),
    ],
)
def test_a_shells_question(line, expected, tmp_path):
    """In a process of its own: the answer ends it. It loads no torch."""
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " ",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    code = "from ltplugins.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, timeout=60, check=True
    )
    assert expected in answer.read_text().replace("\\", "").split()
