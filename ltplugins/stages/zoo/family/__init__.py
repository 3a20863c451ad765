# SPDX-License-Identifier: MIT
"""``scripts/zoo.py``: the entries of a zoo, made of the claims' cells."""
