# SPDX-License-Identifier: MIT
"""Temperature schedules as a wrapper over any base that has a temperature: ``ts_<base>``.

Paper: Kukleva et al., "Temperature Schedules for Self-Supervised Contrastive Methods on Long-Tail
Data", ICLR 2023, https://arxiv.org/abs/2303.13664
Official code: https://github.com/Annusha/temperature_schedules at 3ac1db6

Per epoch: the schedule's temperature (``losses/ts.py``) becomes the base's ``temperature``. It is
worked out from the epoch at every step and is no state: a resumed run cannot be out of step.

Known differences from the official code, which has SimCLR only:
- ``t_max`` may be a share of the run; the official 200 of 2000 epochs (CIFAR) are the default 10%.
- ``interval: step`` lets the temperature move within an epoch. It is ours.
- Each view is a batch of its own to the BatchNorms, as the hosts have it; officially both are one:
  ``joint_views``.
- The last, short batch is dropped unless ``data.drop_last`` is false, as officially.
- The projector is the base's own; ``method_kwargs.proj_head: official`` takes the official one.
- MoCo is in the paper and not in the code; every further base is our generalisation. MoCo v3's
  loss has its temperature as a factor too, so there the schedule also moves the gradient's scale.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above
from ltplugins.core.schema import Section
from ltplugins.core.transfer import scalar
from ltplugins.losses.ts import cosine_temperature
from ltplugins.methods.parts.durations import LongDuration, to_epochs
from ltplugins.methods.wrapper import Wrapper


@dataclass(frozen=True)
class TSConfig(Section):
    """The block ``method_kwargs.ts``; the defaults are the official settings for CIFAR."""

    temperature_min: Annotated[float, Above(0)] = 0.1
    temperature_max: Annotated[float, Above(0)] = 1.0
    t_max: LongDuration = "10%"  # from highest to lowest: epochs, or a share of the run
    interval: Literal["epoch", "step"] = "epoch"  # step is ours
    # Officially true: the views are one batch to every BatchNorm; false: one each.
    joint_views: bool = False

    def refusals(self) -> Iterator[tuple[str, str]]:
        """The schedule has a lowest and a highest temperature."""
        if not self.temperature_min <= self.temperature_max:
            yield (
                "temperature_min",
                f"a number of at most temperature_max ({self.temperature_max:g})",
            )


class TSMixin(Wrapper):
    """Sets ``temperature`` of the base that follows in the MRO, whose loss is left as it is.

    Logs train_ts_temperature. The base's own ``method_kwargs.temperature`` is never used.
    """

    wrapper_name = "ts"
    wrapper_config = TSConfig
    temperature: float

    def setup_wrapper(self, options: TSConfig) -> None:
        """Check the base and start the schedule."""
        self.ts = options
        if not isinstance(getattr(self, "temperature", None), int | float):
            raise UserError(
                f"ts_{self.base_name}: {self.base_name} has no single temperature to schedule. "
                f"Take a contrastive base, such as ts_simclr, ts_supcon or ts_mocov2plus."
            )
        t_max = to_epochs(options.t_max, self.max_epochs)
        # Once an epoch, a shorter half period would be drawn from at random points.
        self.ts_t_max = t_max if options.interval == "step" else max(1.0, t_max)
        self.temperature = self._scheduled_temperature(0)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Any:
        """The base's step at the schedule's temperature."""
        self.temperature = self._scheduled_temperature(batch_idx)
        loss = super().training_step(batch, batch_idx)
        # The same on every rank: nothing to reduce.
        self.log(
            "train_ts_temperature",
            scalar(self.temperature, batch[0].device),
            on_epoch=True,
            batch_size=len(batch[0]),
            sync_dist=False,
        )
        return loss

    def _scheduled_temperature(self, batch_idx: int) -> float:
        # The official code counts epochs from 1.
        epoch: float = self.current_epoch + 1
        if self.ts.interval == "step":
            batches = self.trainer.num_training_batches if batch_idx else 1
            epoch = self.current_epoch + batch_idx / batches
        return cosine_temperature(
            epoch,
            temperature_min=self.ts.temperature_min,
            temperature_max=self.ts.temperature_max,
            t_max=self.ts_t_max,
        )
