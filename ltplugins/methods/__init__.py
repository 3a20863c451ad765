# SPDX-License-Identifier: MIT
"""Methods and wrappers, one file each: ``registry`` describes them, ``build`` makes classes."""
