# SPDX-License-Identifier: MIT
"""COLT as a wrapper over any host method that yields z: ``colt_<base>``.

Paper: Bai et al., "On the Effectiveness of Out-of-Distribution Data in Self-Supervised Long-Tail
Learning", ICLR 2023, https://arxiv.org/abs/2306.04934
Official code: https://github.com/JianhongBai/COLT at 3c4507b

Per step: views -> base loss and z (host) -> tail score of every training image of the global batch
-> moving average per image -> once OOD images are drawn, the term that keeps the domains apart.
Every ``interval`` epochs from ``warmup`` on: cluster, share the budget, choose, replace.

Known differences from the official code, beside those in ``losses/colt.py``,
``losses/terms/ood_selection.py`` and ``parts/ood_subset.py``:
- Any base, not SimCLR alone; the temperature here is the scores' and the term's own.
- A selection needs an epoch of scores: a warm-up of 0 is one of 1 (officially a crash).
- The selection is made at the end of the epoch before, so that scores and subset are in the
  checkpoint (officially both are lost on resume) and every epoch has its own order (officially the
  epoch after a selection repeats the first one's).
- A pool smaller than the budget is taken as a whole, with a warning.
- Learning rate and momentum schedules know the true number of steps; officially it is estimated as
  one more batch an epoch than ``drop_last`` gives.
- DeepClusterV2 as base is refused: its memory has the size of the first epoch.
- Each view is a batch of its own to the BatchNorms, as the hosts have it; officially both are one:
  ``joint_views``.
- The last, short batch is dropped unless ``data.drop_last`` is false, as officially.
- The projector is the base's own; ``method_kwargs.proj_head: official`` takes the official one.
- Scores and term are of the global batch without the official padding, whose removal shifts pairs.

Legend: B global batch, D embedding dim, N training images, M OOD images, K budget.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from ltplugins.core.distributed import gather, gather_no_grad
from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above, AtLeast, Below, Seed, UpTo
from ltplugins.core.schema import Section
from ltplugins.host.facts import facts_of
from ltplugins.losses.colt import distribution_supcon_loss, tail_scores
from ltplugins.losses.terms.memory import update_memory
from ltplugins.methods.needs import Needs
from ltplugins.methods.parts.durations import Duration, Images, to_epochs, to_images
from ltplugins.methods.parts.growing import steps_until, tell_true_total
from ltplugins.methods.parts.ood_subset import choose_subset
from ltplugins.methods.wrapper import Wrapper

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class COLTConfig(Section):
    """The block ``method_kwargs.colt``. Durations: epochs, or a share of the run ("5%").

    The defaults are the official CIFAR-100 settings; its 100 and 25 of 2000 epochs are the shares.
    """

    # alpha, of the domain term; 0 in the official CIFAR-10 script.
    weight: Annotated[float, AtLeast(0)] = 0.2
    temperature: Annotated[float, Above(0)] = 0.2  # tau, of the scores and of the term
    # k negatives of a score; a float is a share of them.
    topk: Annotated[int, AtLeast(1)] | Annotated[float, UpTo(0, 1)] = 10
    momentum: Annotated[float, Below(0, 1)] = 0.97  # m, the share of an image's old score
    warmup: Duration = "5%"  # w: epochs without OOD images
    interval: Duration = "1.25%"  # r: epochs from one selection to the next
    budget: Images = 10_000  # K: images, or a share of N such as "50%"
    num_clusters: Annotated[int, AtLeast(1)] = 10  # C
    cluster_temperature: Annotated[float, Above(0)] = 1.0  # tau_c
    cluster_seed: Seed = 0
    # N from which k-means works in mini-batches.
    minibatch_above: Annotated[int, AtLeast(0)] = 100_000
    assignment: Literal["greedy", "fair"] = "greedy"  # fair: no cluster is asked first
    denominator: Literal["all", "cross_domain"] = "all"  # of the term; see losses/colt.py
    # Officially true: the views are one batch to every BatchNorm; false: one each.
    joint_views: bool = False


class COLTMixin(Wrapper):
    """Adds ``weight * L_SCL`` and the OOD images to the base that follows in the MRO.

    Logs train_colt_loss and train_colt_score (mean of the batch's tail scores, low = tail). The
    buffers colt_memory, colt_memory_filled and colt_selected_for are in the checkpoint; the chosen
    images are too, as the state of the data module.
    """

    wrapper_name = "colt"
    wrapper_config = COLTConfig
    needs = Needs(
        indexes=True,
        more_views=True,
        small_views=True,
        samplers=("id_plus_ood",),
        ood=True,
    )
    colt_memory: Tensor  # Float[N], tail scores
    colt_memory_filled: Tensor  # Bool[N]
    colt_selected_for: Tensor  # Int[], the epoch from which the present subset is drawn; -1 = none

    def setup_wrapper(self, options: COLTConfig) -> None:
        """Allocate the scores. Called once the base is built."""
        self.colt = options
        if facts_of(self.base_name).fixed_length:
            raise UserError(
                f"colt_{self.base_name}: {self.base_name} keeps a memory of one epoch's size, and "
                f"COLT's epochs grow. Take another base."
            )
        warmup = to_epochs(options.warmup, self.max_epochs)
        self.colt_first = max(1, round(warmup))  # 0-based epoch that first draws OOD images
        interval = to_epochs(options.interval, self.max_epochs)
        self.colt_interval = max(1, round(interval))
        self.register_buffer("colt_selected_for", torch.tensor(-1))
        COLTMixin.allocate_per_sample(self, self.num_samples or 0)

    def allocate_per_sample(self, num_samples: int) -> None:
        """(Re)allocate the scores, empty, for N images (0: as soon as N is known)."""
        device = self.colt_selected_for.device
        self.register_buffer("colt_memory", torch.zeros(num_samples, device=device))
        filled = torch.zeros(num_samples, dtype=torch.bool, device=device)
        self.register_buffer("colt_memory_filled", filled)

    def setup(self, stage: str) -> None:
        """Find the pool; tell the trainer how many steps the growing epochs make."""
        super().setup(stage)
        if stage != "fit":
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        if not getattr(data, "num_ood", 0):
            raise UserError(
                "COLT changes what is drawn while it trains and needs the data of this package. "
                "Run it with ltplugins pretrain or scripts/pretrain.py, not with the host's main."
            )
        self.colt_budget = to_images(self.colt.budget, data.num_samples)
        if self.colt_budget > data.num_ood:
            log.warning(
                "colt.budget asks for %d OOD images, the pool has %d: all of them are taken.",
                self.colt_budget,
                data.num_ood,
            )
            self.colt_budget = data.num_ood
        tell_true_total(self.trainer, int(self._steps_until(self.max_epochs)))

    def configure_optimizers(self) -> Any:
        """The base's, with a warm-up that lasts as many steps as its epochs really have."""
        if getattr(getattr(self, "gh", None), "two_stage_lr", False):
            raise UserError(
                "method_kwargs.gh.two_stage_lr counts epochs of equal length, and COLT's grow. "
                "Set it to false."
            )
        if self.scheduler_interval != "step":
            return super().configure_optimizers()
        nominal = self.warmup_epochs
        # The hosts take the mean length of an epoch; before the first selection it is shorter.
        per_epoch = self.trainer.estimated_stepping_batches / self.max_epochs
        self.warmup_epochs = self._steps_until(min(nominal, self.max_epochs)) / per_epoch
        try:
            return super().configure_optimizers()
        finally:
            self.warmup_epochs = nominal

    def _steps_until(self, epoch: float) -> float:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        plain, grown = (
            data.batches_per_epoch(k, self.trainer.world_size) for k in (0, self.colt_budget)
        )
        return steps_until(epoch, lambda e: grown if e >= self.colt_first else plain, self.trainer)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Base step, scores, and once OOD images are drawn the domain term.

        Args:
            batch: ``[indexes (B,), [views V x (B, 3, H, W)], targets (B,)]``; OOD images have an
                index of N or more.
        """
        base_loss, outs = self.collect_views(super().training_step, batch, batch_idx)
        z_1, z_2 = (gather(out["z"]) for out in outs[:2])
        indexes = gather_no_grad(batch[0])

        # Scores are of the weights before this step, as in the official code.
        scores = tail_scores(z_1, z_2, temperature=self.colt.temperature, topk=self.colt.topk)
        update_memory(
            self.colt_memory, self.colt_memory_filled, indexes, scores, self.colt.momentum
        )
        metrics = {"train_colt_score": scores.mean()}
        loss = base_loss
        if self.colt.weight > 0 and self.current_epoch >= self.colt_first:
            term = distribution_supcon_loss(
                z_1,
                z_2,
                indexes >= len(self.colt_memory),
                temperature=self.colt.temperature,
                denominator=self.colt.denominator,
            )
            metrics["train_colt_loss"] = term.detach()
            loss = base_loss + self.colt.weight * term
        # Of the global batch, equal on every rank: nothing to reduce.
        self.log_dict(metrics, on_epoch=True, batch_size=len(batch[0]), sync_dist=False)
        return loss

    def on_train_epoch_end(self) -> None:
        """Replace the OOD images where the schedule says so, before the checkpoint is written."""
        super().on_train_epoch_end()
        # Lightning reads the number of batches again only when it is told to ask for the loader.
        self.trainer.reload_dataloaders_every_n_epochs = 0  # type: ignore[attr-defined]
        upcoming = self.current_epoch + 1
        if upcoming >= self.max_epochs or not self._is_due(upcoming):
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        data.set_ood(
            *choose_subset(
                self,
                data,
                self.colt_memory,
                self.colt_memory_filled,
                self.colt_budget,
                self.colt,
            )
        )
        self.colt_selected_for.fill_(upcoming)
        self.trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]

    def _is_due(self, epoch: int) -> bool:
        """Whether the latest selection that ``epoch`` should have is still to be made."""
        past = epoch - self.colt_first
        return past >= 0 and int(self.colt_selected_for) < epoch - past % self.colt_interval
