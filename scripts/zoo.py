# SPDX-License-Identifier: MIT
"""Make the entries of the zoo: python scripts/zoo.py --help."""

import os

# Before torch is imported: each cell is one thread, and its process may be forked only from one
# that has not touched the GPU, as a look for it otherwise would.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

from ltplugins.stages.zoo.family.command import main

if __name__ == "__main__":
    main()
