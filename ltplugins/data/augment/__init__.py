# SPDX-License-Identifier: MIT
"""From an image to its views, image by image or a whole batch at once."""
