# SPDX-License-Identifier: MIT
"""The registry: every wrapper has its five parts, registration is idempotent and refuses thefts."""

from pathlib import Path

import pytest

import ltplugins
from ltplugins.errors import UserError
from ltplugins.methods.registry import WRAPPERS, load_mixin, register_methods

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_has_its_five_parts(wrapper):
    for part in (
        f"ltplugins/losses/{wrapper}.py",
        f"ltplugins/methods/{wrapper}.py",
        f"ltplugins/conf/method/{wrapper}.yaml",
        f"tests/methods/test_{wrapper}.py",
        f"tests/losses/test_{wrapper}_loss.py",
    ):
        assert (ROOT / part).exists(), f"{wrapper} lacks {part}"
    head = (ROOT / f"ltplugins/methods/{wrapper}.py").read_text()[:1500]
    assert "arxiv.org" in head
    assert "github.com" in head
    assert load_mixin(wrapper).wrapper_name == wrapper


def test_registering_twice_is_the_same_as_once():
    from ltplugins.host import METHODS

    names = ltplugins.register()
    classes = {n: METHODS[n] for n in names}
    assert ltplugins.register() == names
    assert all(METHODS[n] is c for n, c in classes.items())
    assert "gh_simclr" in names
    assert not any(n.startswith("gh_gh_") for n in METHODS)
    assert METHODS["gh_simclr"].__name__ == "GHSimCLR"


def test_a_taken_name_is_refused(monkeypatch):
    from ltplugins.host import METHODS

    class Foreign:
        pass

    monkeypatch.setitem(METHODS, "gh_simclr", Foreign)
    with pytest.raises(UserError, match="cannot register 'gh_simclr'"):
        register_methods()
