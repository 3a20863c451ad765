# SPDX-License-Identifier: MIT
"""Which positions of the training subset are drawn in an epoch."""
