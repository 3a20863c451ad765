# SPDX-License-Identifier: MIT
"""Seeds that depend on the epoch alone."""

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class EpochSeed(Callback):
    """Seeds every epoch by (seed, epoch, rank).

    Then an epoch's randomness (dropout, a host method's own draws) depends on nothing that came
    before it, and a run that resumes at an epoch's start repeats the unbroken one.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed torch (CPU and devices), NumPy and Python."""
        import random

        import numpy as np

        mixed = np.random.SeedSequence((self.seed, trainer.current_epoch, trainer.global_rank))
        value = int(mixed.generate_state(1)[0])
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)
