# SPDX-License-Identifier: MIT
"""The report of evaluated runs: table, figures, pages."""
