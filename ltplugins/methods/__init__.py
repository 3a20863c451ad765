# SPDX-License-Identifier: MIT
"""Methods and wrappers: one file each; the registry puts them into the host's ``METHODS``."""

from ltplugins.methods.registry import WRAPPERS, register_methods, wrap

__all__ = ["WRAPPERS", "register_methods", "wrap"]
