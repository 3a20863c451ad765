# SPDX-License-Identifier: MIT
"""Results that stay beside new ones: of the same features, of the same bank."""

import dataclasses

import pytest

from ltplugins.eval.earlier import is_of, joined
from ltplugins.eval.results import GroupMembers, ProtocolResult, Results, Sizes, SplitName, Stat

ONE = Stat(0.5, None, 1)


def entry(**settings):
    groups = {"tercile": dict.fromkeys(("many", "medium", "few", "group_std"), ONE)}
    return ProtocolResult("linear", "", settings, 9, [0], 1, ONE, ONE, ONE, groups, [0.5])


def results(protocols, notes=(), **changes):
    return Results(
        protocols=protocols, notes=list(notes), groups={"tercile": GroupMembers("", [0], [1], [2])},
        class_counts=[9, 5, 2], sizes=Sizes(16, 7, 6), run="r", method="simclr", seed=0,
        epoch=1, host=None, dataset="d", split=SplitName("h", "s"), class_names=["a", "b", "c"],
        features={"test": "key"}, options={"seeds": [0]}, evaluated="now",
        parts={"test": "images"}, **changes,
    )  # fmt: skip


def test_those_of_the_same_name_are_replaced_and_others_stay():
    old = results({"a": entry(c=1.0), "b": entry(c=1.0)}, notes=["old"], failed={"z": "no"})
    new = results({"a": entry(c=2.0)}, notes=["new"])
    found = joined(old, new)
    assert {name: one.settings["c"] for name, one in found.protocols.items()} == {
        "a": 2.0,
        "b": 1.0,
    }
    assert found.notes == ["new", "old"] and not found.failed
    assert joined(old, results({**new.protocols, "b": entry(c=3.0)})).notes == []


@pytest.mark.parametrize(("theirs", "kept"), [("x", True), (None, True), ("y", False)])
def test_another_bank_is_another_protocol(theirs, kept, caplog):
    old = results({"a": entry(fit_on="probe")})
    old.parts["probe"] = "x"
    new = results({"b": entry(bank="train")})
    new.parts.update({"probe": theirs} if theirs else {})
    found = joined(old, new)
    assert ("a" in found.protocols) == kept
    assert ("on another bank: a" in caplog.text) == (not kept)
    assert found.parts["probe"] == (theirs or "x")


def test_alarms_are_those_of_the_newest_health():
    alarm = "health: the features of all images point one way."
    old = results({"a": entry()}, notes=[alarm, "other"])
    assert joined(old, results({"b": entry()})).notes == [alarm, "other"]
    assert joined(old, results({"a": entry()})).notes == [alarm]
    measured = dataclasses.replace(results({"b": entry()}), health=object())
    assert joined(old, measured).notes == ["other"]


def test_numbers_of_other_features_or_classes_are_others():
    old = results({"a": entry()})
    assert is_of(old, "key", "images", [9, 5, 2]) and is_of(old, "key", "images", None)
    assert not is_of(old, "other", "images", [9, 5, 2])
    assert not is_of(old, "key", "images", [9, 5, 3])
    # A fine-tuning knows its classifier; the features of its test images may have another name.
    tuned = dataclasses.replace(old, options={})
    assert is_of(tuned, "other", "images", [9, 5, 2]) and not is_of(tuned, "other", "others", None)
