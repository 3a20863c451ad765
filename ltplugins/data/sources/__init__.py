# SPDX-License-Identifier: MIT
"""Where images come from: by name, from files, from arrays, from packs."""
