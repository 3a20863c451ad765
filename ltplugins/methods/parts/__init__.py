# SPDX-License-Identifier: MIT
"""What methods are made of."""
