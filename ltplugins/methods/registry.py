# SPDX-License-Identifier: MIT
"""What we offer, and how a name becomes a class: ``gh_simclr`` = GH over SimCLR, ``mttv``.

To add a wrapper or a method: one line in ``WRAPPERS`` or ``METHODS``. CONTRIBUTING.md names the
other four files.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from ltplugins.core.errors import UserError

# name -> mixin class. A mixin collects what base_training_step returned and adds its term.
WRAPPERS: dict[str, str] = {
    "gh": "ltplugins.methods.gh:GHMixin",
    "mv": "ltplugins.methods.mv:MVMixin",
    "colt": "ltplugins.methods.colt:COLTMixin",
    "sdclr": "ltplugins.methods.sdclr:SDCLRMixin",
    "ts": "ltplugins.methods.ts:TSMixin",
    "bcl": "ltplugins.methods.bcl:BCLMixin",
}

# name -> mixin class. A mixin goes before the host's base class and brings a whole method.
METHODS: dict[str, str] = {
    "focal": "ltplugins.methods.focal:FocalMixin",
    "iccl": "ltplugins.methods.iccl:ICCLMixin",
    "mttv": "ltplugins.methods.mttv:MTTVMixin",
    "gml": "ltplugins.methods.gml:GMLMixin",
}

# (outer, inner): gh_colt_<base> is GH over COLT over a base.
COMPOSED = (("gh", "colt"), ("gh", "sdclr"), ("gh", "ts"), ("bcl", "sdclr"))

# Host entries that produce no embedding z to harmonise.
_WITHOUT_Z = {"base", "linear", "mae"}


def load_mixin(name: str) -> type:
    """Import the mixin class of a wrapper or method of ours."""
    module, _, attribute = {**WRAPPERS, **METHODS}[name].partition(":")
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


def build_method(name: str) -> type:
    """Build a method of ours over the host's base class.

    Args:
        name: a key of ``METHODS``.
    """
    from ltplugins.host import BaseMethod, BaseMomentumMethod

    mixin: Any = load_mixin(name)
    base = BaseMomentumMethod if mixin.uses_momentum else BaseMethod
    members = {"__doc__": mixin.__doc__, "__module__": mixin.__module__}
    return type(mixin.__name__.removesuffix("Mixin"), (mixin, base), members)


def option_classes(method: str) -> dict[str, type]:
    """The typed blocks of ours that a method's config holds, by their path in the YAML."""
    if method in METHODS:
        mixin: Any = load_mixin(method)
        return {"method_kwargs": mixin.method_config}
    mixins: list[Any] = [load_mixin(name) for name in split_name(method)[0]]
    return {f"method_kwargs.{m.wrapper_name}": m.wrapper_config for m in mixins}


def split_name(method: str) -> tuple[list[str], str]:
    """The wrappers of a name, the outermost first, and what they are over."""
    wrappers = []
    head, _, rest = method.partition("_")
    while rest and head in WRAPPERS:
        wrappers.append(head)
        method = rest
        head, _, rest = method.partition("_")
    return wrappers, method


def register_methods() -> list[str]:
    """Register our methods, and every wrapper over every host method that yields z.

    Returns:
        The names that are ours.

    Raises:
        UserError: one of our names is taken by a class that is not ours.
    """
    from ltplugins.host import METHODS as HOST_METHODS

    bases = {n: c for n, c in HOST_METHODS.items() if n not in _WITHOUT_Z and not _is_ours(c)}
    ours = []
    for wrapper in WRAPPERS:
        for base_name, base in bases.items():
            name = f"{wrapper}_{base_name}"
            _register(HOST_METHODS, name, partial(wrap, wrapper, base_name, base))
            ours.append(name)
    for outer, inner in COMPOSED:
        for name in [n for n in ours if n.startswith(f"{inner}_")]:
            base_name = name.removeprefix(f"{inner}_")
            build = partial(wrap, outer, base_name, HOST_METHODS[name])
            _register(HOST_METHODS, f"{outer}_{name}", build)
            ours.append(f"{outer}_{name}")
    for name in METHODS:
        _register(HOST_METHODS, name, partial(build_method, name))
        ours.append(name)
    return ours


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
