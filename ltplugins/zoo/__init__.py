# SPDX-License-Identifier: MIT
"""Models in use: opening any of them, and writing them for programs that know nothing of us."""
