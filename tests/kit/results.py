# SPDX-License-Identifier: MIT
"""What has been measured: the methods of the comparison in zoo/results."""

import csv

from tests.kit.paths import ROOT


def compared() -> set[str]:
    """Names of the methods with results, without what a second stage made of them."""
    with open(ROOT / "zoo/results/comparison.csv", newline="") as f:
        return {row["method"].partition("+")[0] for row in csv.DictReader(f)}
