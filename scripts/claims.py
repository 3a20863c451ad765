# SPDX-License-Identifier: MIT
"""Judge what papers claim on the embedded images: python scripts/claims.py --help."""

import os

# Before torch is imported: each cell is one thread, and its process may be forked only from one
# that has not touched the GPU, as a look for it otherwise would.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

from ltplugins.stages.claims.command import main

if __name__ == "__main__":
    main()
