# SPDX-License-Identifier: MIT
"""Shared set-up: quiet Lightning."""

import logging
import warnings

warnings.filterwarnings("ignore", module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
