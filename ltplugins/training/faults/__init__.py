# SPDX-License-Identifier: MIT
"""What can go wrong while a run trains, and how it ends."""
