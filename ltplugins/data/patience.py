# SPDX-License-Identifier: MIT
"""How long a process that loads images is waited for: one that is stopped would hold a run up."""

SECONDS = 600


def patience(num_workers: int, seconds: int = SECONDS) -> float:
    """The ``timeout`` of a DataLoader: seconds a batch is waited for, 0 for ever.

    Without workers there is nobody to wait for, and torch takes no limit.
    """
    return float(seconds) if num_workers > 0 else 0.0
