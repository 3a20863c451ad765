# SPDX-License-Identifier: MIT
"""Evaluate a run folder or a checkpoint: python scripts/evaluate.py run=runs/gh_simclr/fashion."""

from ltplugins.stages.evaluate import main

if __name__ == "__main__":
    main()
