# SPDX-License-Identifier: MIT
"""The options of GML and what is wrong with some of them. See ``gml.py``."""

from dataclasses import dataclass

from ltplugins.core.errors import UserError


@dataclass(frozen=True)
class GMLConfig:
    """The block ``method_kwargs``; the defaults are the official CIFAR ones, without a teacher."""

    proj_hidden_dim: int | None = None  # null: the width of the features
    proj_output_dim: int = 32
    temperature: float = 0.1  # T_c at the start; it is learned
    scale: float = 30.0  # 1/T_s of the cosine classifier
    queue_size: int = 4096
    base_k: int = 2  # slots that every class has at least; 0: first in, first out
    sup_weight: float = 1.0  # gamma
    contrast_weight: float = 1.0  # beta; 0: logit-adjusted cosine classifier, as teachers train
    distill_weight: float = 0.0  # alpha; above 0 it needs a teacher with a classifier of its own
    distill_temperature: float = 4.0
    teacher: str | None = None  # a run folder or checkpoint; null: momentum mode
    class_counts: list[int] | None = None  # null: as the data say


def check_options(options: GMLConfig, num_classes: int) -> None:
    """Refuse values out of range.

    Raises:
        UserError: with the key, what was expected and what came.
    """
    for name, good, expected in (
        ("proj_output_dim", options.proj_output_dim >= 1, "1 or more"),
        ("temperature", options.temperature > 0, "a number above 0"),
        ("scale", options.scale > 0, "a number above 0"),
        ("base_k", options.base_k >= 0, "0 or more"),
        ("sup_weight", options.sup_weight > 0, "a number above 0"),
        ("contrast_weight", options.contrast_weight >= 0, "0 or more"),
        ("distill_weight", options.distill_weight >= 0, "0 or more"),
        ("distill_temperature", options.distill_temperature > 0, "a number above 0"),
    ):
        if not good:
            value = getattr(options, name)
            raise UserError(f"method_kwargs.{name}: expected {expected}, got {value}.")
    smallest = max(1, options.base_k * num_classes)
    if options.contrast_weight > 0 and options.queue_size < smallest:
        raise UserError(
            f"method_kwargs.queue_size: expected {smallest} or more, base_k ({options.base_k}) for "
            f"each of {num_classes} classes; got {options.queue_size}."
        )
    counts = options.class_counts
    if counts is not None and (len(counts) != num_classes or min(counts) < 0 or sum(counts) < 1):
        raise UserError(
            f"method_kwargs.class_counts: expected {num_classes} numbers of training images, one "
            f"per class; got {counts}."
        )
    if options.distill_weight > 0 and options.teacher is None:
        raise UserError(
            f"method_kwargs.distill_weight is {options.distill_weight:g} and there is no teacher. "
            f"Set method_kwargs.teacher to a run folder, or distill_weight=0."
        )
