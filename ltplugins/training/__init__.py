# SPDX-License-Identifier: MIT
"""Training a method: the loop's callbacks, the balancing of a classifier."""
