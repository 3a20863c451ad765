# SPDX-License-Identifier: MIT
"""The one seam to solo-learn: ``from ltplugins.host import BaseMethod, METHODS, HOST``.

Every main calls :func:`prepare` first: it finds the host, mends what is broken in it and registers
our names.

The names below are solo-learn's own where an importable ``solo`` meets the 1.0.6 contract, and
those of the stand-in (``ltplugins.host.builtin``) elsewhere; ``LTPLUGINS_HOST=solo|builtin`` forces
the choice.
They are loaded on first use, so that ``ltplugins.host.detect`` and the stand-in can be imported
without importing solo-learn.
"""

import functools
import importlib
import os
from typing import TYPE_CHECKING, Any

from ltplugins.host.detect import ENV, HostInfo, choose

if TYPE_CHECKING:
    from ltplugins.host.builtin import METHODS as METHODS
    from ltplugins.host.builtin import BaseMethod as BaseMethod
    from ltplugins.host.builtin import BaseMomentumMethod as BaseMomentumMethod

    HOST: HostInfo

__all__ = ["HOST", "METHODS", "BaseMethod", "BaseMomentumMethod", "HostInfo", "prepare"]


def prepare() -> HostInfo:
    """Find the host, mend it where it is solo-learn, register our names; say what was found.

    Calling it twice is the same as calling it once. It loads torch.

    Raises:
        UserError: see ``ltplugins.host.detect.choose`` and ``ltplugins.register``.
    """
    import ltplugins

    info: HostInfo = _load()["HOST"]
    if info.name == "solo":
        _mend()
    # The registry stands floors above this one; the package's own facade reaches it by name, so
    # that no import of this file points up and a main has one call to make.
    ltplugins.register()
    return info


@functools.cache
def _mend() -> None:
    from ltplugins.host.solo import apply_fixes

    apply_fixes()


@functools.cache
def _load() -> dict[str, Any]:
    """Choose once per process and return the public names.

    Raises:
        UserError: see ``ltplugins.host.detect.choose``.
    """
    info = choose(os.environ.get(ENV))
    if info.name == "solo":
        base = importlib.import_module("solo.methods.base")
        methods = importlib.import_module("solo.methods").METHODS
    else:
        base = importlib.import_module("ltplugins.host.builtin")
        methods = base.METHODS
    return {
        "HOST": info,
        "METHODS": methods,
        "BaseMethod": base.BaseMethod,
        "BaseMomentumMethod": base.BaseMomentumMethod,
    }


def __getattr__(name: str) -> Any:
    if name in ("HOST", "METHODS", "BaseMethod", "BaseMomentumMethod"):
        return _load()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
