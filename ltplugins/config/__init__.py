# SPDX-License-Identifier: MIT
"""A run's config: parsed once, into types."""
