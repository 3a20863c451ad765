# SPDX-License-Identifier: MIT
"""From the registry's names to classes in the host's ``METHODS``: mixins put before a base."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ltplugins.core.errors import UserError
from ltplugins.host.facts import facts_of
from ltplugins.methods.registry import COMPOSED, METHODS, WRAPPERS, load_mixin


def register_methods() -> list[str]:
    """Register our methods, and every wrapper over every host method that yields z.

    Returns:
        The names that are ours.

    Raises:
        UserError: one of our names is taken by a class that is not ours.
    """
    from ltplugins.host import METHODS as HOST_METHODS

    bases = {n: c for n, c in HOST_METHODS.items() if facts_of(n).yields_z and not _is_ours(c)}
    ours = []
    for wrapper in WRAPPERS:
        for base_name, base in bases.items():
            name = f"{wrapper}_{base_name}"
            _register(HOST_METHODS, name, partial(wrap, wrapper, base_name, base))
            ours.append(name)
    for composed in COMPOSED:
        for name in [n for n in ours if n.startswith(f"{composed.inner}_")]:
            base_name = name.removeprefix(f"{composed.inner}_")
            build = partial(wrap, composed.outer, base_name, HOST_METHODS[name])
            _register(HOST_METHODS, f"{composed.outer}_{name}", build)
            ours.append(f"{composed.outer}_{name}")
    for name in METHODS:
        _register(HOST_METHODS, name, partial(build_method, name))
        ours.append(name)
    return ours


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


def build_method(name: str) -> type:
    """Build a method of ours over the host's base class.

    Args:
        name: a key of ``METHODS``.
    """
    from ltplugins.host import BaseMethod, BaseMomentumMethod

    mixin = load_mixin(name)
    base = BaseMomentumMethod if mixin.uses_momentum else BaseMethod
    members = {"__doc__": mixin.__doc__, "__module__": mixin.__module__}
    return type(mixin.__name__.removesuffix("Mixin"), (mixin, base), members)


def _register(methods: dict[str, Any], name: str, build: Callable[[], type]) -> None:
    taken = methods.get(name)
    if taken is None:
        methods[name] = build()
    elif not _is_ours(taken):
        raise UserError(
            f"cannot register '{name}': the host already has a method of that name "
            f"({taken.__module__}.{taken.__qualname__}). Rename that one."
        )


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("ltplugins.methods")
