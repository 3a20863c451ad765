# SPDX-License-Identifier: MIT
"""What several losses share; each a pure function of tensors."""
