# SPDX-License-Identifier: MIT
"""What a trained backbone is good for: classifiers trained on it."""
