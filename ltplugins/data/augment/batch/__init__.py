# SPDX-License-Identifier: MIT
"""Views of a whole batch at once, on the device it is on."""
