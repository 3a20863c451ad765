# SPDX-License-Identifier: MIT
"""run.json has a schema: it opens again as it was, old ones too, others are named in one line."""

import json

import pytest

from ltplugins.core.errors import UserError
from ltplugins.runs.facts import FirstStage, Origin, RunFacts, SplitFacts

SPLIT = SplitFacts("7 images", "abc", 7, [4, 2, 1], ["a", "b", "c"])
ORIGIN = Origin(method="simclr", host="solo-learn 1.0.6", split=SPLIT)
# Of a version that wrote no number of its form.
OLD = {
    "identity_hash": "0f",
    "identity": {"max_epochs": 2, "data": {"dataset": "x"}},
    "command": ["ltplugins", "pretrain"],
    "started": "2026-01-01T00:00:00+00:00",
    "ltplugins": "0.1.0",
    "git": None,
    "python": "3.11.7",
    "machine": {"system": "Linux", "cpus": 2},
    "packages": {"torch": "2.6"},
    "host": "the built-in stand-in 0.1.0",
    "split": {
        "description": "all 7 images",
        "hash": "abc",
        "num_samples": 7,
        "class_counts": [4, 2, 1],
        "class_names": ["a", "b", "c"],
    },
    "method": "simclr",
    "finished": "2026-01-01T00:01:00+00:00",
    "seconds": 60,
    "images_per_second": 10.5,
}


def test_it_opens_again_as_it_was(tmp_path):
    facts = RunFacts.begin(ORIGIN, {"seed": 1})
    facts.write(tmp_path / "run.json")
    assert RunFacts.read(tmp_path / "run.json") == facts
    stored = json.loads((tmp_path / "run.json").read_text())
    assert stored["version"] == 2
    assert stored["split"]["class_counts"] == [4, 2, 1]
    assert not {"finished", "label", "stage_1", "classifier"} & set(stored)
    assert "git" in stored  # even where there is no checkout


def test_the_first_stage_is_kept(tmp_path):
    first = FirstStage("runs/iccl", 5, "f0")
    origin = Origin(method="iccl", host="h", split=SPLIT, label="iccl+balance", stage_1=first)
    RunFacts.begin(origin, {}).write(tmp_path / "run.json")
    assert RunFacts.read(tmp_path / "run.json").stage_1 == first


def test_a_file_of_before_there_were_numbers_opens(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(OLD))
    facts = RunFacts.read(tmp_path / "run.json")
    assert facts.finished == OLD["finished"]
    assert facts.split.num_samples == 7
    assert facts.version == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "run.json is damaged: it is no JSON"),
        ("\x00", "run.json is damaged"),
        ("[]", "run.json is damaged, or of another program: .*expected a block of keys"),
        ("{}", "run.json is damaged, or of another program: .* is missing"),
        (json.dumps({**OLD, "version": 3}), "is of form 3, .* up to 2. Update ltplugins."),
        (json.dumps({**OLD, "split": 3}), "damaged, or of another program: split: expected a"),
        (json.dumps({**OLD, "seconds": "x"}), "seconds: expected a number"),
    ],
)
def test_others_are_named(text, message, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        RunFacts.read(tmp_path / "run.json")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        RunFacts.read(tmp_path / "nothing.json")
