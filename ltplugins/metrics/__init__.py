# SPDX-License-Identifier: MIT
"""Measures of features and predictions: kNN, groups by training count."""
