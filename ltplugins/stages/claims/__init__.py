# SPDX-License-Identifier: MIT
"""``make claims``: what papers claim, trained, evaluated and judged by paired differences."""
