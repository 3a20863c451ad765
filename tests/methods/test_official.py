# SPDX-License-Identifier: MIT
"""Every file under scripts/pretrain trains with the official numbers, but where it says otherwise.

The numbers of the official codes are facts with their source, in ``tests/kit/official``; ours are
read off the model, optimizer and schedule that are built from the file.
"""

import pytest

from ltplugins.host import HOST
from tests.kit.official import PAGE, names, script, tables
from tests.kit.official.page import page

pytestmark = [
    pytest.mark.skipif(HOST.name != "builtin", reason="of the stand-in's base classes"),
    pytest.mark.xdist_group("official"),  # each file is built once
]

SETTINGS, ENTRIES, _ = tables()
NO_SETTING = "No official setting"


@pytest.mark.parametrize("name", ENTRIES)
def test_numbers_are_the_official_ones_or_listed(name):
    found = script(name)
    assert not found.unlisted, f"{name}: (official, ours) differ and are not listed"
    assert not found.needless, f"{name}: listed as differing, and equal"
    assert {"rates", "weight_decay", "batch", "epochs", "crop", "jitter", "head", "last_batch"} <= {
        *found.equal,
        *(d.name for d in found.differences),
    }


@pytest.mark.parametrize("name", names())
def test_the_head_says_which_setting_it_is_and_what_differs(name):
    found = script(name)
    if found.setting is None:
        assert NO_SETTING in found.head
        return
    assert NO_SETTING not in found.head
    assert f"Official: {found.setting.repository} {found.setting.commit}, " in found.head
    said = found.head.partition("Differs: ")[2]
    for difference in found.differences:
        assert difference.words in said, f"{name} does not say: {difference.words}"
    if "CIFAR-10-LT" in found.head:
        assert f"CIFAR-10-LT, {ENTRIES[name]['cifar10']}: data=cifar10_lt" in found.head


def test_every_setting_and_every_entry_is_used():
    assert {entry["equals"] for entry in ENTRIES.values()} == set(SETTINGS)
    assert set(ENTRIES) <= set(names())


def test_a_setting_names_its_source():
    for name, setting in SETTINGS.items():
        assert setting.repository.count("/") == 1 and len(setting.commit) == 7, name
        assert setting.command and setting.read, name
        assert len(setting.numbers["rates"]) == 5, name


def test_the_page_is_of_these_numbers():
    assert PAGE.read_text() == page(), "run python -m tests.kit.official.page"
