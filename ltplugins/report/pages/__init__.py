# SPDX-License-Identifier: MIT
"""The report's page and its files."""
