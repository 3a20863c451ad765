# SPDX-License-Identifier: MIT
"""Evaluation of a frozen backbone: cached features, probes on them, and the numbers of a run.

``features`` and ``extractor`` -> ``protocol`` with ``linear`` -> ``scores`` -> ``results.json``.
"""
