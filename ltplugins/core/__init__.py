# SPDX-License-Identifier: MIT
"""The ground floor: errors, files, ranks, typed sections, seeds, precision, console."""
