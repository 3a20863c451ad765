# SPDX-License-Identifier: MIT
"""Geometric Harmonization as a wrapper over any host method that yields z: ``gh_<base>``.

Paper: Zhou et al., "Combating Representation Learning Disparity with Geometric Harmonization",
NeurIPS 2023, https://arxiv.org/abs/2310.17622
Official code: https://github.com/MediaBrain-SJTU/Geometric-Harmonization at 9f7057c

Per step: views -> base loss and z (host) -> geometric logits on the global batch -> per-image
memory -> after the warm-up, swapped cross-entropy with Sinkhorn's surrogate labels.

Known differences from the official code, beside those in ``losses/gh.py``:
- The memory is updated every step from the global batch in both settings; the official
  ImageNet script does so once per epoch from a shadow table that sums uninitialised rows.
- The prior is recomputed at the end of the epochs that the schedule names. The official CIFAR
  script does it after every step of those epochs: ``prior_refresh: step``.
- Before the first recomputation (``warmup: 0``) the prior is uniform; officially it is undefined.
- Stage learning rates are shares of the peak, so that they follow the host's batch-size scaling.
- SDCLR's second backward pass is no part of this wrapper.
- The last, short batch is dropped unless ``data.drop_last`` is false, as officially.
- The projector is the base's own; ``method_kwargs.proj_head: official`` takes the official one.

Legend: B global batch, K directions, D embedding dim, N training images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from omegaconf import OmegaConf
from torch import Tensor

from ltplugins.core.distributed import gather, gather_no_grad
from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above, AtLeast, Seed, Within
from ltplugins.core.schema import Section
from ltplugins.core.transfer import scalar
from ltplugins.losses.gh import (
    geometric_logits,
    gh_loss,
    ramp_weight,
    simplex_etf,
)
from ltplugins.methods.needs import Needs
from ltplugins.methods.parts.durations import Duration, to_epochs
from ltplugins.methods.parts.population_memory import PopulationMemory


@dataclass(frozen=True)
class GHConfig(Section):
    """The block ``method_kwargs.gh``. Durations: epochs, or a share of the run ("50%").

    The defaults are the official CIFAR settings, whose 500 + 10 of 1000 epochs are the shares; but
    for ``two_stage_lr`` and ``prior_refresh: step``, which its file under scripts sets.
    """

    num_directions: Annotated[int, AtLeast(2)] = 100  # K, whatever the number of classes
    weight: Annotated[float, AtLeast(0)] = 1.0  # w_GH after the ramp
    warmup: Duration = "50%"  # E_w: base loss alone, the memory fills
    ramp: Duration = "1%"  # R: epochs from weight 0 to full
    temperature: Annotated[float, Above(0)] = 0.1  # gamma
    epsilon: Annotated[float, Above(0)] = 0.05  # Sinkhorn's entropy weight
    num_iters: Annotated[int, AtLeast(1)] = 300  # Sinkhorn's, at most
    # Sinkhorn stops early below this L1 error of its columns.
    tolerance: Annotated[float, AtLeast(0)] | None = None
    memory_momentum_warmup: Annotated[float, Within(0, 1)] = 0.9  # beta up to the end of warm-up
    memory_momentum: Annotated[float, Within(0, 1)] = 0.999  # beta after it
    memory_dtype: Literal["float32", "float16", "bfloat16"] = "float32"  # of the stored logits
    memory_sharded: bool = False  # each rank keeps N / W rows; see parts/population_memory.py
    prior_interval: Duration = "2%"  # recompute the prior in every n-th epoch after warm-up
    prior_refresh: Literal["epoch", "step"] = "epoch"  # step: after each of such an epoch
    # Every recomputation comes so many epochs earlier; 1 in the official ImageNet script.
    prior_early: Annotated[int, AtLeast(0)] = 0
    # Added to every count; 100 in the official ImageNet script.
    prior_floor: Annotated[float, AtLeast(0)] = 0.0
    approximate_etf: bool = False  # allow K > D + 1, where no exact simplex exists
    etf_seed: Seed = 0  # draws the directions' rotation
    two_stage_lr: bool = False  # the official schedule: cosine to the boundary, then restart
    # Share of the peak at the end of warm-up; officially 0.6 (0.3 of 0.5) on CIFAR, else 0.2.
    stage_1_end_lr: Annotated[float, AtLeast(0)] = 0.6
    # Share of the peak from which the second stage falls; officially as at the end of the first.
    stage_2_start_lr: Annotated[float, AtLeast(0)] = 0.6


class GHMixin(PopulationMemory):
    """Adds ``weight * w(epoch) * L_GH`` to the loss of the base that follows in the MRO.

    Logs train_gh_loss, train_gh_weight and train_gh_prior_entropy (in nats; log K is uniform).
    The buffers gh_etf, gh_memory, gh_memory_filled and gh_prior are in the checkpoint; the memory
    itself is in ``parts/population_memory.py``.
    """

    wrapper_name = "gh"
    wrapper_config = GHConfig
    needs = Needs(indexes=True, more_views=True, small_views=True)
    official_head_layers = 2  # over SDCLR too
    gh_etf: Tensor  # Float[K D]

    def setup_wrapper(self, options: GHConfig) -> None:
        """Allocate directions, memory and prior. Called once the base is built."""
        self.gh = options
        dim = self.embedding_dim()
        if options.num_directions > dim + 1 and not options.approximate_etf:
            raise UserError(
                f"method_kwargs.gh.num_directions: {options.num_directions} directions form an "
                f"exact simplex only in dimension {options.num_directions - 1} or more, and z has "
                f"{dim}. Raise method_kwargs.proj_output_dim, lower num_directions, or set "
                f"method_kwargs.gh.approximate_etf=true for nearly uniform directions."
            )
        generator = torch.Generator().manual_seed(options.etf_seed)
        etf = simplex_etf(options.num_directions, dim, generator=generator)
        self.register_buffer("gh_etf", etf)
        uniform = torch.full((options.num_directions,), 1.0 / options.num_directions)
        self.register_buffer("gh_prior", uniform)
        self.register_buffer("gh_prior_is_set", torch.tensor(False))
        self.gh_with_ood = OmegaConf.select(self.cfg, "data.ood") is not None
        GHMixin.allocate_per_sample(self, self.num_samples or 0)
        self.gh_warmup = round(to_epochs(options.warmup, self.max_epochs))
        self.gh_ramp = to_epochs(options.ramp, self.max_epochs)
        interval = to_epochs(options.prior_interval, self.max_epochs)
        self.gh_prior_interval = max(1, round(interval))

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Base step, memory, and after the warm-up the GH term.

        Args:
            batch: ``[indexes (B,), [views V x (B, 3, H, W)], targets (B,)]``.
        """
        base_loss, outs = self.collect_views(super().training_step, batch, batch_idx)
        z_1, z_2 = (gather(out["z"]) for out in outs[:2])
        logits_1, logits_2 = geometric_logits(z_1, self.gh_etf), geometric_logits(z_2, self.gh_etf)

        indexes = gather_no_grad(batch[0])
        # Logits are of the weights before this step, as in the official code. Images of an OOD pool
        # (index N and more, under COLT) have no row, and the prior is not theirs: no part of GH.
        self.remember(indexes, logits_1.detach(), self._memory_momentum())
        is_id = indexes < self.allocated_rows if self.gh_with_ood else None
        loss = self._add_term(base_loss, logits_1, logits_2, is_id, len(batch[0]))
        # The step's own labels are of the prior before it, as in the official code.
        if self.gh.prior_refresh == "step" and self._is_prior_epoch(self.current_epoch + 1):
            self.recompute_prior()
        return loss

    def _add_term(
        self,
        loss: Tensor,
        logits_1: Tensor,
        logits_2: Tensor,
        is_id: Tensor | None,
        batch_size: int,
    ) -> Tensor:
        """The base's loss with the weighted term of these geometric logits, Float[B K] each.

        Args:
            is_id: Bool[B], the rows that the term is of; None for all.
        """
        weight = self.gh.weight * ramp_weight(self.current_epoch + 1, self.gh_warmup, self.gh_ramp)
        # Where nothing is added, the base's loss is reproduced bit for bit.
        if weight == 0:
            return loss
        term = gh_loss(
            logits_1,
            logits_2,
            self.gh_prior,
            counted=is_id,
            temperature=self.gh.temperature,
            epsilon=self.gh.epsilon,
            num_iters=self.gh.num_iters,
            tolerance=self.gh.tolerance,
        )
        self._log_term(term, weight, batch_size)
        return loss + weight * term

    def on_train_epoch_start(self) -> None:
        """Make up for a refresh that a resumed checkpoint has not seen.

        solo-learn's own Checkpointer saves before :meth:`on_train_epoch_end`. The memory has not
        changed since then, so in an unbroken run this gives the prior that is there.
        """
        super().on_train_epoch_start()
        if self.current_epoch > 0 and self._is_prior_epoch(self.current_epoch):
            self.recompute_prior()

    def on_train_epoch_end(self) -> None:
        """Recompute the population prior where the schedule says so."""
        super().on_train_epoch_end()
        if self._is_prior_epoch(self.current_epoch + 1):
            self.recompute_prior()
            self.log_prior()

    def configure_optimizers(self) -> Any:
        """The base's optimiser and schedule, or with ``two_stage_lr`` the restart at E_w."""
        configured = super().configure_optimizers()
        if not self.gh.two_stage_lr:
            return configured
        optimizer = configured[0][0] if isinstance(configured, tuple) else configured
        static = {g["name"] for g in self.learnable_params if g.get("static_lr")}
        factors = [
            (lambda step: 1.0)
            if str(group.get("name", "")).removesuffix("_no_decay") in static
            else self._two_stage_factor
            for group in optimizer.param_groups
        ]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 1}]

    def _two_stage_factor(self, step: int) -> float:
        """Share of the peak: linear warm-up, cosine to E_w, restart, cosine to the end."""
        steps_per_epoch = self.trainer.estimated_stepping_batches / self.max_epochs
        epoch = step / steps_per_epoch
        lr_warmup = min(float(self.warmup_epochs), float(self.gh_warmup))
        if epoch < lr_warmup:
            return max(epoch, 1 / steps_per_epoch) / lr_warmup
        if epoch < self.gh_warmup:
            done = (epoch - lr_warmup) / (self.gh_warmup - lr_warmup)
            return _cosine(1.0, self.gh.stage_1_end_lr, done)
        done = (epoch - self.gh_warmup) / max(self.max_epochs - self.gh_warmup, 1e-9)
        end = self.min_lr / self.lr if self.lr else 1.0  # of a rate of 0, any share
        return _cosine(self.gh.stage_2_start_lr, end, min(done, 1.0))

    def _memory_momentum(self) -> float:
        in_warmup = self.current_epoch + 1 <= self.gh_warmup
        return self.gh.memory_momentum_warmup if in_warmup else self.gh.memory_momentum

    def _is_prior_epoch(self, epoch: int) -> bool:
        """True if the prior is due at the end of ``epoch``, 1-based."""
        epoch += self.gh.prior_early
        if epoch < self.gh_warmup:
            return False
        due = epoch == self.gh_warmup or epoch % self.gh_prior_interval == 0
        return due or not self.knows_prior()

    def _log_term(self, term: Tensor, weight: float, batch_size: int) -> None:
        prior = self.gh_prior
        metrics = {
            "train_gh_loss": term.detach(),
            "train_gh_weight": scalar(weight, prior.device),
            "train_gh_prior_entropy": torch.special.entr(prior).sum(),
        }
        # The term is of the global batch, equal on every rank: nothing to reduce.
        self.log_dict(metrics, on_epoch=True, batch_size=batch_size, sync_dist=False)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
