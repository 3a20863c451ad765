# SPDX-License-Identifier: MIT
"""NVIDIA DALI as an engine."""
