# SPDX-License-Identifier: MIT
"""A decoder on a run's encoder: python scripts/segment.py run=runs/gh_simclr/land."""

from ltplugins.stages.segment import main

if __name__ == "__main__":
    main()
