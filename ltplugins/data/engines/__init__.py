# SPDX-License-Identifier: MIT
"""Engines turn positions into batches of views, at their own speed."""
