# SPDX-License-Identifier: MIT
"""Long-tailed representation learning as a plugin for solo-learn.

Importing this package is light: no torch, no host. ``register()`` is what loads them, and so does
``load_backbone``, when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltplugins.zoo.load import load_backbone as load_backbone

__version__ = "0.1.0"
__all__ = ["__version__", "load_backbone", "register"]


def register() -> list[str]:
    """Put our methods into the host's ``METHODS`` and do nothing else.

    Calling it twice is the same as calling it once. Returns the names that are ours.

    Raises:
        ValueError: a name of ours is already taken by something that is not ours.
    """
    from ltplugins.methods.build import register_methods

    return register_methods()


def __getattr__(name: str) -> Any:
    if name == "load_backbone":
        from ltplugins.zoo.load import load_backbone

        return load_backbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
