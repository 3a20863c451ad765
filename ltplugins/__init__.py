# SPDX-License-Identifier: MIT
"""Long-tailed representation learning as a plugin for solo-learn.

Importing this package is light: no torch, no host. ``register()`` is what loads them.
"""

__version__ = "0.1.0"
__all__ = ["__version__", "register"]


def register() -> list[str]:
    """Put our methods into the host's ``METHODS`` and do nothing else.

    Calling it twice is the same as calling it once. Returns the names that are ours.

    Raises:
        ValueError: a name of ours is already taken by something that is not ours.
    """
    from ltplugins.methods.build import register_methods

    return register_methods()
