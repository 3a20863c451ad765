# SPDX-License-Identifier: MIT
"""What an evaluation of a run will lack, found out before it trains."""

from collections.abc import Sequence

import numpy as np

from ltplugins.core.errors import UserError
from ltplugins.data.schema import BY_PATH
from ltplugins.data.training_set import TrainingSet
from ltplugins.eval.options import EvalConfig


def lacking(data: TrainingSet, options: EvalConfig) -> list[str]:
    """Say in a sentence each what ``ltplugins evaluate`` will need and the config does not give.

    Nothing of it keeps a run from training: all of it can be given to the evaluation.

    Args:
        data: what is trained on.
        options: of the evaluation.
    """
    lines = []
    if not data.cfg.has_test_part:
        lines.append(
            "data.val_path names no test images: ltplugins evaluate will need data.val_path=PATH."
        )
    if data.num_classes == 1 and not data.cfg.no_labels:
        lines.append(
            f"all training images are of one class, '{data.class_names[0]}': no accuracy will say "
            f"anything. A path to an image folder names the folder above the class folders."
        )
    if "probe" not in options.banks():
        return lines
    if data.cfg.dataset not in BY_PATH:
        return lines
    try:
        targets = (data.probe_source or data.source).targets
    except UserError as error:
        return [
            *lines,
            f"data.probe_path cannot be used: {error} Without a probe set ltplugins evaluate will "
            f"need data.probe_path=PATH, or set data.probe_path=null now, and the training images "
            f"stand in.",
        ]
    if not (targets >= 0).all():
        lines.append(
            "the training images have no labels: ltplugins evaluate will need labelled ones, "
            "data.probe_path=PATH."
        )
    elif options.linear is not None and options.linear.shots is not None:
        lines += _too_few(options.linear.shots, targets, data.class_names)
    return lines


def _too_few(
    shots: Sequence[float | str], targets: np.ndarray, names: tuple[str, ...]
) -> list[str]:
    counts = np.bincount(targets, minlength=len(names))
    least = int(counts.argmin())
    most = max((n for n in shots if isinstance(n, int)), default=0)
    if most <= counts[least]:
        return []
    name = names[least] if least < len(names) else least
    return [
        f"eval.linear.shots asks for {most} labelled images of each class, and class '{name}' has "
        f"{counts[least]}: evaluate with eval.linear.shots=[{counts[least] or 'full'}] or [full]."
    ]
