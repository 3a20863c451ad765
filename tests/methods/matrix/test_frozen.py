# SPDX-License-Identifier: MIT
"""Five losses of every method are those that are stored; ``tests/kit/frozen.py`` captures them."""

import pytest

from tests.kit.cases import names
from tests.kit.frozen import stored
from tests.kit.hosts import on_the_stand_in
from tests.kit.two_steps import five_losses

pytestmark = on_the_stand_in


@pytest.mark.parametrize("name", names())
def test_frozen_losses(name: str) -> None:
    assert five_losses(name) == pytest.approx(stored()[name], rel=1e-6, abs=1e-6)


def test_the_stored_losses_tell_methods_apart() -> None:
    """But BCL's, which changes the views alone; tests/methods/test_bcl.py stores what they do."""
    values = stored()
    assert list(values) == names()
    others = [tuple(losses) for name, losses in values.items() if not name.startswith("bcl_")]
    assert len(set(others)) == len(others)
    assert all(len(set(losses)) == 5 for losses in values.values())
