# SPDX-License-Identifier: MIT
"""What a run leaves behind, and opening it again."""
