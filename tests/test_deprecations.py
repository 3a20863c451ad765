# SPDX-License-Identifier: MIT
"""What our own lines are told is to go fails a test; what libraries tell each other does not."""

import warnings

import pytest

KINDS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("module", ["ltplugins", "ltplugins.losses.gh", "tests.kit.tiny"])
def test_our_own_fail(kind: type[Warning], module: str) -> None:
    with pytest.raises(kind, match="is to go"):
        warnings.warn_explicit("is to go", kind, "gh.py", 1, module=module)


@pytest.mark.parametrize("module", ["torch.nn", "ltplugins_of_another", "solo.methods"])
def test_those_of_others_do_not(module: str) -> None:
    warnings.warn_explicit("is to go", DeprecationWarning, "x.py", 1, module=module)
