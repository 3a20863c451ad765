# SPDX-License-Identifier: MIT
"""Fuzzing in short, the same inputs every time; what was found by the long form is kept below.

``scripts/fuzz/all.py`` is the long form.
"""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from ltplugins.core.errors import UserError
from scripts.fuzz import all as fuzzing
from scripts.fuzz import damage, images, lists, models, words
from scripts.fuzz.judge import Finding, Target, judge

# Inputs of each in a test: what a second of processor time has room for.
COUNTS = {"overrides": 3, "configs": 3, "lists": 40, "indices": 40, "manifests": 15,
          "checkpoints": 15, "images": 60}  # fmt: skip


@pytest.mark.parametrize("name", fuzzing.TARGETS)
def test_any_input_works_or_is_refused(name: str) -> None:
    target = fuzzing.TARGETS[name]
    fuzzing.look_through(target, COUNTS[name], lambda drawn: judge(target, drawn))


SOUND = [
    (words.OVERRIDES, ["pretrain", "--info"]),  # it took the word behind it for its value
    (words.OVERRIDES, ["pretrain", "method=gh_simclr", "max_epochs=2"]),
    (words.CONFIGS, ("claims", words.yaml.safe_dump(words._book()).encode())),
    *((lists.LISTS, (way, lists.LISTS_OF[way])) for way in ("labelled", "plain", "given")),
    (lists.INDICES, ("index.npy", lists.numpy_bytes(np.arange(5)))),
    (lists.INDICES, ("zoo", json.dumps(lists.sound_index()).encode())),
    (images.IMAGES, ("load", ".png", images.samples()[0])),
]


@pytest.mark.parametrize("number", range(len(SOUND)))
def test_sound_inputs_work(number: int) -> None:
    """Otherwise all would be refused at the door, and nothing behind it be tried."""
    target, given = SOUND[number]
    assert judge(target, given) == "works"


def test_so_does_a_sound_checkpoint() -> None:
    assert judge(models.CHECKPOINTS, models.sound_checkpoints()[0]) == "works"


def _archive(name: str, content: bytes, how: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def _changed(**blocks: Any) -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": {}, **blocks}, stream)
    return stream.getvalue()


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


SPLIT = {"description": "d", "hash": "0", "num_samples": 1, "class_names": ["a"]}
DEEP = b"[" * 3_000
# What broke, each of another cause.
FOUND = [
    (lists.LISTS, ("labelled", b"a.png " + b"9" * 30)),  # a label that is no int64
    (lists.LISTS, ("labelled", b"a.png " + b"9" * 5000)),  # no int of Python's
    (lists.LISTS, ("given", b"a.png 99999999999")),  # a name for each class
    (lists.LISTS, ("given", b"a.png " + b"9" * 5000)),
    (lists.LISTS, ("plain", b"a.png\nsub")),  # a folder
    (lists.INDICES, ("index.npy", b"")),
    (lists.INDICES, ("index.npy", b"0\n1\n")),  # taken for a pickle
    (lists.INDICES, ("index.txt", b"\x93NUMPY")),
    (lists.INDICES, ("index.txt", b"9" * 30)),
    (lists.INDICES, ("zoo", DEEP)),
    (words.CONFIGS, ("pretrain", b"data: [1]\nmethod: simclr\nmax_epochs: 1")),
    (words.CONFIGS, ("pretrain", b"defaults: [{a: 1, b: 2}]")),
    (words.CONFIGS, ("run", DEEP)),
    (models.CHECKPOINTS, _changed()),  # no epoch
    (models.CHECKPOINTS, _changed(epoch={})),
    (models.CHECKPOINTS, _changed(epoch=0, ltplugins=[])),
    (models.CHECKPOINTS, _changed(epoch=0, state_dict=None)),
    (models.CHECKPOINTS, _changed(epoch=0, state_dict={"backbone.conv1.weight": None})),
    (models.CHECKPOINTS, pickle.dumps(_Evil())),
    (models.MANIFESTS, ("run.json", DEEP)),
    (models.MANIFESTS, ("config.yaml", b"")),
    (models.MANIFESTS, ("config.json", DEEP)),
]
# The same of files that are whole but for one value.
FOUND_WITHIN = [
    ("results.json", {"sizes": {"train": 1, "probe": 1, "test": -10}}),
    ("results.json", {"class_counts": [1]}),
    ("results.json", {"test_counts": [1, 2]}),
    ("results.json", {"groups": {"tercile": {"rule": "", "many": [99], "medium": [], "few": []}}}),
    ("run.json", {"split": {**SPLIT, "class_counts": []}}),
    ("args.json", {"method_kwargs": {"proj_hidden_dim": 10**30}}),
    ("config.yaml", {"data": "x"}),
]


@pytest.mark.parametrize("number", range(len(FOUND)))
def test_what_was_found_is_refused(number: int) -> None:
    target, given = FOUND[number]
    assert judge(target, given) == "refused"


@pytest.mark.parametrize("number", range(len(FOUND_WITHIN)))
def test_so_is_a_value_that_does_not_fit(number: int) -> None:
    name, change = FOUND_WITHIN[number]
    content = json.dumps({**models.sound_manifest(name), **change}).encode()
    assert judge(models.MANIFESTS, (name, content)) == "refused"


def _touch(path: Path) -> None:
    path.write_text("x")


BAD = {
    "another error": lambda given: {}["x"],
    "a write outside": lambda given: _touch(Path(f"/tmp/{given}-owned")),
    "a folder outside": lambda given: Path(f"/tmp/{given}-owned").mkdir(),
    "a program": lambda given: os.system("true"),
    "a class out of a pickle": lambda given: pickle.loads(pickle.dumps(_touch)),
}


@pytest.mark.parametrize("name", BAD)
def test_the_judge_sees_what_must_not_be(name: str) -> None:
    target = Target("bad", damage.values(), BAD[name])
    with pytest.raises(Finding):
        judge(target, os.getpid())
    assert not Path(f"/tmp/{os.getpid()}-owned").exists()


def test_the_judge_lets_the_rest_pass(tmp_path: Path) -> None:
    def refuse(given: object) -> None:
        _touch(Path("within"))
        raise UserError(f"expected this, got {given!r}.")

    assert judge(Target("fine", damage.values(), refuse), "x") == "refused"
    assert judge(Target("fine", damage.values(), lambda given: None), "x") == "works"
    wishes = Target("fine", damage.values(), lambda given: _touch(tmp_path / "x"), wishes=True)
    assert judge(wishes, "x") == "refused"  # as on a disk that is read-only


def test_a_finding_is_told_once_and_shrunk(capsys: pytest.CaptureFixture[str]) -> None:
    def use(given: int) -> None:
        assert given < 7

    found = fuzzing.fuzz(Target("sevens", st.integers(0, 99), use), 0, 0)
    assert len(found) == 1
    out = capsys.readouterr().out
    assert out.count("FOUND") == 1
    assert "drawn=7" in out
