# SPDX-License-Identifier: MIT
"""The options of GML, and what they must be to the data. See ``gml.py``."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above, AtLeast
from ltplugins.core.schema import Section


@dataclass(frozen=True)
class GMLConfig(Section):
    """The block ``method_kwargs``; the defaults are the official CIFAR ones, without a teacher."""

    proj_hidden_dim: Annotated[int, AtLeast(1)] | None = None  # null: the width of the features
    proj_output_dim: Annotated[int, AtLeast(1)] = 32
    temperature: Annotated[float, Above(0)] = 0.1  # T_c at the start; it is learned
    scale: Annotated[float, Above(0)] = 30.0  # 1/T_s of the cosine classifier
    queue_size: Annotated[int, AtLeast(1)] = 4096
    # Slots that every class has at least; 0: first in, first out.
    base_k: Annotated[int, AtLeast(0)] = 2
    sup_weight: Annotated[float, Above(0)] = 1.0  # gamma
    # beta; 0: logit-adjusted cosine classifier, as teachers train.
    contrast_weight: Annotated[float, AtLeast(0)] = 1.0
    # alpha, of the logits of the teacher, or of the EMA twin; null: 1 where there is one, as in the
    # official CIFAR script (0 in ImageNet's).
    distill_weight: Annotated[float, AtLeast(0)] | None = None
    distill_temperature: Annotated[float, Above(0)] = 4.0
    teacher: str | None = None  # a run folder, checkpoint, zoo://NAME; null: momentum mode
    class_counts: list[Annotated[int, AtLeast(0)]] | None = None  # null: as the data say

    def refusals(self) -> Iterator[tuple[str, str]]:
        """Nothing is distilled from nobody."""
        if (self.distill_weight or 0) > 0 and not self._has_keys:
            yield "distill_weight", "0 with contrast_weight 0 and no teacher (a run folder)"

    @property
    def alpha(self) -> float:
        """``distill_weight``, the default worked out."""
        return float(self._has_keys) if self.distill_weight is None else self.distill_weight

    @property
    def _has_keys(self) -> bool:
        """Whether there is a second network, a teacher or an EMA twin."""
        return self.teacher is not None or self.contrast_weight > 0


def check_against_classes(options: GMLConfig, num_classes: int) -> None:
    """Refuse a queue or class counts that do not fit the data's classes.

    Raises:
        UserError: with the key, what was expected and what came.
    """
    smallest = options.base_k * num_classes
    if options.contrast_weight > 0 and options.queue_size < smallest:
        raise UserError(
            f"method_kwargs.queue_size: expected {smallest} or more, base_k ({options.base_k}) for "
            f"each of {num_classes} classes; got {options.queue_size}."
        )
    counts = options.class_counts
    if counts is not None and (len(counts) != num_classes or sum(counts) < 1):
        raise UserError(
            f"method_kwargs.class_counts: expected {num_classes} numbers of training images, one "
            f"per class; got {counts}."
        )
