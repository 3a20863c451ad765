# SPDX-License-Identifier: MIT
"""A training that diverges is ended at the step where it does, and that step can be repeated.

Every step's loss, logged terms and gradient are looked at on the device; what was found is read at
once on a CPU, where nothing has to be waited for, and every :data:`EVERY` steps elsewhere. What is
said is the first step that was not finite, whenever it is read. ``divergence.json`` in the run's
folder names it; ``ltplugins debug`` trains from the checkpoint before to that step again.

Legend: B batch of one rank.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.records import Record
from ltplugins.training.faults.finite import diverged, finite

FILE = "divergence.json"
EVERY = 64  # steps between two looks at what a device has found
LOSS, GRADIENT = "loss", "gradient"


@dataclass(frozen=True)
class Divergence(Record):
    """The contents of ``divergence.json``: the first step that was not finite.

    Attributes:
        epoch, batch: where it is, counted from 0.
        step: of the optimiser, counted from 1 over the whole run.
        terms: what was not finite: ``loss`` (the one that is trained), logged names, ``gradient``.
        indexes: of the batch's images, by rank.
        checkpoint: name of the file that repeats it; None where the run's start does.
    """

    FORM: ClassVar[int] = 1
    epoch: int
    batch: int
    step: int
    terms: list[str]
    indexes: list[list[int]]
    checkpoint: str | None = None
    version: int = 1

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"epoch {self.epoch + 1}, batch {self.batch + 1}, step {self.step}"


@dataclass
class _Step:
    """What is known of a step before it is read: flags on the device, by name."""

    epoch: int
    batch: int
    step: int
    indexes: Any
    names: list[str]
    flags: Tensor | None = None
    loss: Tensor | None = None
    gradient: Tensor | None = None


class DivergenceWatch(Callback):
    """Ends a training at the first step whose loss or gradient is not finite.

    Under a gradient scaler (``16-mixed``) a gradient overflows now and then, and the step is left
    out: there the loss alone is looked at.

    Args:
        folder: of the run, for :data:`FILE`.
        checkpoint: gives the name of the file from which the step can be repeated.
    """

    def __init__(self, folder: Path, checkpoint: Callable[[], str | None]) -> None:
        self.folder, self.checkpoint = folder, checkpoint
        self._steps: list[_Step] = []
        self._gradient: Tensor | None = None

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Look at the gradients, once they are those of the whole batch."""
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self._gradient = finite(_norms(grads)) if grads else None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the step's flags; read them where that costs nothing, or is due.

        Raises:
            UserError: the training has diverged.
        """
        values = _values(trainer, outputs)
        indexes = batch[0] if isinstance(batch, list | tuple) else None
        step = _Step(trainer.current_epoch, batch_idx, trainer.global_step, indexes, list(values))
        if values:
            step.flags = torch.stack([torch.isfinite(value).all() for value in values.values()])
            step.loss = step.flags[0] if LOSS in values else None
        step.gradient, self._gradient = self._gradient, None
        self._steps.append(step)
        device = trainer.strategy.root_device
        if device.type == "cpu" or len(self._steps) >= EVERY:
            self.read(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read what is left before the epoch is saved."""
        self.read(trainer)

    def read(self, trainer: Trainer) -> None:
        """Wait for the flags and end the training at the first step that has a bad one.

        Raises:
            UserError: there is one.
        """
        steps, self._steps = self._steps, []
        kept = [flag for s in steps for flag in (s.loss, s.gradient) if flag is not None]
        if not kept or bool(torch.stack(kept).all()):
            return
        first = next(step for step in steps if _bad(step))
        found = Divergence(
            epoch=first.epoch,
            batch=first.batch,
            step=first.step,
            terms=_bad(first),
            indexes=_of_all_ranks(trainer, first),
            checkpoint=self.checkpoint(),
        )
        if trainer.is_global_zero:
            found.write(self.folder / FILE)
        raise UserError(self._tell(trainer, found))

    def _tell(self, trainer: Trainer, found: Divergence) -> str:
        named = [name for name in found.terms if name != GRADIENT]
        what = f"{', '.join(named)} {'is' if len(named) == 1 else 'are'} not finite"
        if not named:
            what = "the loss is finite, its gradient is not"
        images = [str(i) for i in found.indexes[0]] if found.indexes else []
        shown = ", ".join(images[:8]) + (" ..." if len(images) > 8 else "")
        more = f" It is batch {found.batch + 1} of the epoch, of the images with indexes {shown}."
        more += f" To repeat that step: ltplugins debug {self.folder / FILE}."
        return diverged(trainer, found.step, what, more)


def _norms(grads: Sequence[Tensor]) -> list[Tensor]:
    """One number a gradient, Float[]; not finite where the gradient is not, or overflows."""
    by_kind: dict[Any, list[Tensor]] = {}
    for grad in grads:
        dense = grad.coalesce().values() if grad.is_sparse else grad
        by_kind.setdefault((dense.device, dense.dtype), []).append(dense)
    # The largest number of each: a sum of squares of a sound gradient could overflow.
    return [
        norm
        for same in by_kind.values()
        for norm in torch._foreach_norm(same, float("inf"))  # type: ignore[arg-type]
    ]


def _values(trainer: Trainer, outputs: Any) -> Mapping[str, Tensor]:
    """The loss that is trained, first, and what was logged beside it so far in this epoch."""
    values: dict[str, Tensor] = {}
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if isinstance(loss, Tensor):
        values[LOSS] = loss.detach()
    results: Any = trainer.fit_loop.epoch_loop._results
    for key, entry in results.items():
        name = key.partition(".")[2] or key
        value = getattr(entry, "value", None)
        if isinstance(value, Tensor) and name.startswith("train_") and "acc" not in name:
            values[name] = value.detach()
    return values


def _bad(step: _Step) -> list[str]:
    """What of a step is not finite; nothing where its loss and gradient are."""
    ends = [flag for flag in (step.loss, step.gradient) if flag is not None]
    if all(bool(flag) for flag in ends):
        return []
    flags = [] if step.flags is None else step.flags.tolist()
    names = [name for name, good in zip(step.names, flags, strict=True) if not good]
    if step.gradient is not None and not bool(step.gradient):
        names.append(GRADIENT)
    return names


def _of_all_ranks(trainer: Trainer, step: _Step) -> list[list[int]]:
    own = step.indexes.flatten().tolist() if isinstance(step.indexes, Tensor) else []
    # Every rank sees a gradient that is not finite at the same step; a loss it may be alone with.
    if trainer.world_size == 1 or step.gradient is None or bool(step.gradient):
        return [own]
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, own)
    return gathered
