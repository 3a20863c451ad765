# SPDX-License-Identifier: MIT
"""``ltplugins zoo``: list, info, get, verify, add, card, sign and serve."""
