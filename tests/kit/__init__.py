# SPDX-License-Identifier: MIT
"""Helpers of the tests."""
