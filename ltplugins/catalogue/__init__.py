# SPDX-License-Identifier: MIT
"""The zoo from outside: which entries there are, and a verified copy of one on this machine."""
