# SPDX-License-Identifier: MIT
"""Re-train a run's classifier, class-balanced: python scripts/balance.py run=runs/iccl/fashion."""

from ltplugins.stages.balance import main

if __name__ == "__main__":
    main()
