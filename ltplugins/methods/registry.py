# SPDX-License-Identifier: MIT
"""What we offer, and how a wrapper's name becomes a class: ``gh_simclr`` = GH over SimCLR.

To add a wrapper: one line in ``WRAPPERS``. CONTRIBUTING.md names the other four files.
"""

import importlib
from typing import Any

from ltplugins.errors import UserError

# name -> mixin class. A mixin collects what base_training_step returned and adds its term.
WRAPPERS: dict[str, str] = {
    "gh": "ltplugins.methods.gh:GHMixin",
    "colt": "ltplugins.methods.colt:COLTMixin",
}

# (outer, inner): gh_colt_<base> is GH over COLT over a base.
COMPOSED = (("gh", "colt"),)

# Host entries that produce no embedding z to harmonise.
_WITHOUT_Z = {"base", "linear", "mae"}


def load_mixin(wrapper: str) -> type:
    """Import the mixin class of a wrapper's name."""
    module, _, attribute = WRAPPERS[wrapper].partition(":")
    return getattr(importlib.import_module(module), attribute)


def wrap(wrapper: str, base_name: str, base: type) -> type:
    """Build ``<Wrapper><Base>``, a host method with the wrapper's term added.

    Args:
        wrapper: a key of ``WRAPPERS``.
        base_name: the name of ``base`` in the host's ``METHODS``; the base sees it as its own.
        base: the host's class.
    """
    mixin = load_mixin(wrapper)
    name = f"{mixin.__name__.removesuffix('Mixin')}{base.__name__}"
    doc = f"{mixin.__name__.removesuffix('Mixin')} over {base.__name__}. See {mixin.__module__}."
    return type(
        name, (mixin, base), {"base_name": base_name, "__doc__": doc, "__module__": __name__}
    )


def register_methods() -> list[str]:
    """Register every wrapper over every host method that yields z; return the names of ours.

    Raises:
        UserError: one of our names is taken by a class that is not ours.
    """
    from ltplugins.host import METHODS

    ours = []
    for wrapper in WRAPPERS:
        bases = {n: c for n, c in METHODS.items() if n not in _WITHOUT_Z and not _is_ours(c)}
        for base_name, base in bases.items():
            name = f"{wrapper}_{base_name}"
            _register(METHODS, name, wrapper, base_name, base)
            ours.append(name)
    for outer, inner in COMPOSED:
        for name in [n for n in ours if n.startswith(f"{inner}_")]:
            base_name = name.removeprefix(f"{inner}_")
            _register(METHODS, f"{outer}_{name}", outer, base_name, METHODS[name])
            ours.append(f"{outer}_{name}")
    return ours


def _register(methods: dict[str, Any], name: str, wrapper: str, base_name: str, base: type) -> None:
    taken = methods.get(name)
    if taken is None:
        methods[name] = wrap(wrapper, base_name, base)
    elif not _is_ours(taken):
        raise UserError(
            f"cannot register '{name}': the host already has a method of that name "
            f"({taken.__module__}.{taken.__qualname__}). Rename that one."
        )


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("ltplugins.methods")
