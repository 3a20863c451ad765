# SPDX-License-Identifier: MIT
"""The methods' losses, one method a file: pure functions of tensors."""
