# SPDX-License-Identifier: MIT
"""Evaluation of a frozen backbone: cached features, probes on them, and the numbers of a run.

``features``, ``extractor`` -> ``protocol`` with ``outcomes`` and ``linear`` -> ``scores`` ->
``results.json``.
"""
