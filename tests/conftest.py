# SPDX-License-Identifier: MIT
"""Shared set-up: helpers on the path, no thread storms, quiet Lightning."""

import logging
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
warnings.filterwarnings("ignore", module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
