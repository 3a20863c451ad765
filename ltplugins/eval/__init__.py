# SPDX-License-Identifier: MIT
"""Evaluation on cached features, from numbers to pages.

``features`` -> ``knn`` and ``linear`` -> ``groups`` -> ``protocol`` (``results.json``) ->
``summary`` -> ``report``. ``online_knn`` is the metric for use while training.
"""
