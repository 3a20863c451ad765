# SPDX-License-Identifier: MIT
"""Train a classifier on a run's backbone: python scripts/finetune.py run=runs/gh_simclr/fashion."""

from ltplugins.stages.finetune import main

if __name__ == "__main__":
    main()
