# SPDX-License-Identifier: MIT
"""What a trained backbone is good for: what is trained on it."""
