# SPDX-License-Identifier: MIT
"""BCL as a wrapper over any host method that yields z: ``bcl_<base>``.

Paper: Zhou et al., "Contrastive Learning with Boosted Memorization", ICML 2022,
https://arxiv.org/abs/2205.12693
Official code: https://github.com/MediaBrain-SJTU/BCL at a2342f8 (CIFAR-100 alone); ImageNet-LT and
Places-LT: https://github.com/MediaBrain-SJTU/Geometric-Harmonization at 9f7057c

Per step: views -> base loss and z (host) -> NT-Xent of every image of the global batch -> moving
average per image. Per epoch: the averages become strengths, and RandAugment of image i is applied
with probability h_i at a magnitude that grows with h_i (``data/augment/strength.py``). The base's
loss is left as it is.

Known differences from the official code, beside those in ``losses/bcl.py`` and
``data/augment/randaugment.py``:
- Any base. Over SimCLR L_i is the trained loss; over another base it is still NT-Xent of the
  base's z, which is our generalisation and not in the paper.
- Variant D is the paper's setting over SDCLR; here it is an option over any base.
- Strengths and memory are in the checkpoint; officially both are lost on resume.
- The projector is the base's own; ``method_kwargs.proj_head: official`` takes the official one.
- Each view is a batch of its own to the BatchNorms, as the hosts have it; officially both are one
  (not over SDCLR): ``joint_views``.
- The last, short batch is dropped unless ``data.drop_last`` is false, as officially.

Legend: B global batch, N training images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from ltplugins.core.distributed import gather_no_grad
from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above, Below
from ltplugins.core.schema import Section
from ltplugins.data.augment.strength import Boost
from ltplugins.losses.bcl import boost_strengths, image_losses
from ltplugins.losses.terms.memory import update_memory
from ltplugins.methods.needs import Needs
from ltplugins.methods.wrapper import Wrapper

# I: one operation, magnitudes 10 + 20 h. D: two, 5 + 25 h u with u from [0, 1] per image.
# imagenet: two, 30 h u, as the GH authors' code has it for ImageNet-LT and Places-LT.
VARIANTS = {
    "I": {"num_ops": 1, "min_magnitude": 10.0, "random_factor": False},
    "D": {"num_ops": 2, "min_magnitude": 5.0, "random_factor": True},
    "imagenet": {"num_ops": 2, "min_magnitude": 0.0, "random_factor": True},
}


@dataclass(frozen=True)
class BCLConfig(Section):
    """The block ``method_kwargs.bcl``; the defaults are the official CIFAR-100 settings."""

    variant: Literal["I", "D", "imagenet"] = "I"
    momentum: Annotated[float, Below(0, 1)] = 0.97  # beta, the share of an image's old loss
    # tau of L_i; the packaged YAML takes the base's, where it has one.
    temperature: Annotated[float, Above(0)] = 0.2
    ops: Literal["bcl", "torchvision"] = "bcl"  # RandAugment's list; bcl is the official one
    # Officially true: the views are one batch to every BatchNorm; false: one each, as over SDCLR.
    joint_views: bool = False


class BCLMixin(Wrapper):
    """Augments the images with a high momentum loss more strongly; the base's loss stays as it is.

    Logs train_bcl_loss (mean L_i of the batch, not trained) and train_bcl_spread (standard
    deviation of h over the training images; their mean is 1/2 by definition). The buffers
    bcl_memory, bcl_memory_filled, bcl_memory_strength (h of the epoch that runs) and
    bcl_strength_for are in the checkpoint.
    """

    wrapper_name = "bcl"
    wrapper_config = BCLConfig
    needs = Needs(indexes=True, more_views=True, small_views=True)
    official_head_layers = 2  # over SDCLR too
    bcl_memory: Tensor  # Float[N], M
    bcl_memory_filled: Tensor  # Bool[N]
    bcl_memory_strength: Tensor  # Float[N], h
    bcl_strength_for: Tensor  # Int[], the epoch that h is for; -1 = none yet

    def setup_wrapper(self, options: BCLConfig) -> None:
        """Allocate the memory. Called once the base is built."""
        self.bcl = options
        self.register_buffer("bcl_strength_for", torch.tensor(-1))
        BCLMixin.allocate_per_sample(self, self.num_samples or 0)

    def allocate_per_sample(self, num_samples: int) -> None:
        """(Re)allocate the memory, empty, for N images (0: as soon as N is known)."""
        device = self.bcl_strength_for.device
        filled = torch.zeros(num_samples, dtype=torch.bool, device=device)
        self.register_buffer("bcl_memory", torch.zeros(num_samples, device=device))
        self.register_buffer("bcl_memory_filled", filled)
        self.register_buffer("bcl_memory_strength", torch.zeros(num_samples, device=device))

    def setup(self, stage: str) -> None:
        """Tell the data that views follow a strength, before the loader is made.

        Raises:
            UserError: data that cannot.
        """
        super().setup(stage)
        if stage != "fit":
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "boost_views"):
            raise UserError(
                "BCL changes each image's augmentation while it trains and needs the data of this "
                "package. Run it with ltplugins pretrain or scripts/pretrain.py, not with the "
                "host's main."
            )
        data.boost_views(Boost(**VARIANTS[self.bcl.variant], ops=self.bcl.ops))  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        """Strengths of the epoch that is begun or gone on with.

        An epoch that is resumed in the middle keeps the strengths it began with, although the
        memory has moved on. After a checkpoint of an epoch's very last batch Lightning leaves out
        :meth:`on_train_epoch_start` of the next one.
        """
        super().on_train_start()
        self._renew_strengths()
        self.trainer.datamodule.set_strength(self.bcl_memory_strength)  # type: ignore[attr-defined]

    def on_train_epoch_start(self) -> None:
        """Strengths from the memory as the epoch before left it; 0 in the first epoch.

        The loader makes its first batch after this.
        """
        super().on_train_epoch_start()
        if self._renew_strengths():
            self.trainer.datamodule.set_strength(self.bcl_memory_strength)  # type: ignore[attr-defined]

    def _renew_strengths(self) -> bool:
        """Compute the strengths of the present epoch unless they are there; whether it did."""
        if int(self.bcl_strength_for) == self.current_epoch:
            return False
        self.bcl_memory_strength.copy_(boost_strengths(self.bcl_memory, self.bcl_memory_filled))
        self.bcl_strength_for.fill_(self.current_epoch)
        return True

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """The base's step; beside it the loss of each image, remembered.

        Args:
            batch: ``[indexes (B,), [views V x (B, 3, H, W)], targets (B,)]``.
        """
        loss, outs = self.collect_views(super().training_step, batch, batch_idx)
        z_1, z_2 = (gather_no_grad(out["z"].detach()) for out in outs[:2])
        indexes = gather_no_grad(batch[0])

        # Of the weights before this step, as in the official code.
        losses = image_losses(z_1, z_2, indexes, temperature=self.bcl.temperature)
        update_memory(self.bcl_memory, self.bcl_memory_filled, indexes, losses, self.bcl.momentum)
        metrics = {
            "train_bcl_loss": losses.mean(),
            "train_bcl_spread": self.bcl_memory_strength.std(correction=0),
        }
        # Of the global batch, equal on every rank: nothing to reduce.
        self.log_dict(metrics, on_epoch=True, batch_size=len(batch[0]), sync_dist=False)
        return loss
