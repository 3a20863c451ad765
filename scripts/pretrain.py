# SPDX-License-Identifier: MIT
"""Pretrain a method: python scripts/pretrain.py --config-path DIR --config-name FILE key=value."""

from ltplugins.stages.pretrain import main

if __name__ == "__main__":
    main()
