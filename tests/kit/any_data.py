# SPDX-License-Identifier: MIT
"""``python tests/kit/any_data.py SCRIPT ...``: run a script on CIFAR files of any content."""

import os
import runpy
import sys
from pathlib import Path

from torchvision import datasets


def main() -> None:
    """torchvision compares checksums, which generated files cannot have."""
    datasets.cifar.check_integrity = lambda path, md5=None: os.path.isfile(path)
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
