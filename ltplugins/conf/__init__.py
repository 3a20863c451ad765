# SPDX-License-Identifier: MIT
"""Hydra groups: data, method, schedule, augmentations, eval; one copy of each."""
