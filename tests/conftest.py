# SPDX-License-Identifier: MIT
"""Shared set-up: helpers on the path, no thread storms, quiet Lightning."""

import logging
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent
# Helpers are shared between the folders: tests/helpers.py, tests/host/host_helpers.py
# and rank_helpers.py, tests/stages/solo_yaml.py.
sys.path[:0] = [str(HERE), str(HERE / "host"), str(HERE / "stages")]
warnings.filterwarnings("ignore", module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
