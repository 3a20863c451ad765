# SPDX-License-Identifier: MIT
"""A trained run as a frozen teacher: its features, and its own classifier's logits if it has one.

A teacher is no part of the student's module: neither optimizer nor DDP nor the checkpoint sees it.
The student's checkpoint names it by its file's hash instead.
"""

from typing import Any

import torch
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.files import sha256
from ltplugins.host.stem import record_wants_small_stem
from ltplugins.runs.checkpoint import open_run
from ltplugins.runs.model import count_classes, load_model


class Teacher:
    """Opens the run, builds its model and freezes it in eval mode.

    Args:
        path: a run folder, a checkpoint, or ``zoo://NAME`` (features alone).
        key: the config key that named it, for messages.

    Attributes:
        features_dim: width of its features.
        has_classifier: whether :meth:`logits` can be asked for.
        num_classes: that it was trained on.
        method: its name.
        sha256: of its checkpoint.

    Raises:
        UserError: no such run, or weights that do not fit.
    """

    def __init__(self, path: str, key: str) -> None:
        self.key = key
        try:
            run = open_run(path)
        except UserError as error:
            raise UserError(
                f"{key}: {error} A teacher is a run folder, a checkpoint or zoo://NAME."
            ) from error
        self.num_classes = count_classes(run)
        small = record_wants_small_stem(run.cfg.data.dataset)
        # The student's own initialisation must not depend on its teacher.
        with torch.random.fork_rng(devices=[]):
            self._model: Any = load_model(run, self.num_classes, small)
        self._model.eval().requires_grad_(False)
        self.features_dim: int = self._model.features_dim
        self.has_classifier = bool(getattr(self._model, "own_classifier", False))
        self.method = run.cfg.method
        self.sha256 = sha256(run.checkpoint)

    def require_classifier(self, num_classes: int) -> None:
        """Refuse to distil from a teacher that cannot say what the student should.

        Raises:
            UserError: no classifier of its own, or one of another number of classes.
        """
        if not self.has_classifier:
            raise UserError(
                f"{self.key}: {self.method} has no classifier of its own to learn from. Set "
                f"method_kwargs.distill_weight=0, or take a run of gml as teacher."
            )
        if self.num_classes != num_classes:
            raise UserError(
                f"{self.key}: it tells {self.num_classes} classes apart, the data have "
                f"{num_classes}. Set method_kwargs.distill_weight=0, or take another teacher."
            )

    @torch.no_grad()
    def feats(self, x: Tensor) -> Tensor:
        """Float[N D'] of images Float[N 3 H W], on their device."""
        return self._model.to(x.device).backbone(x)

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Float[N C] of images, scaled as the teacher's own softmax takes them."""
        return self._model.class_logits(self.feats(x))


def require_same_teacher(expected: str | None, teacher: Teacher | None) -> None:
    """Refuse to go on with another teacher than the checkpoint's.

    Args:
        expected: the hash in the checkpoint; None if that run has no teacher.

    Raises:
        UserError: the hashes differ.
    """
    found = None if teacher is None else teacher.sha256
    if found != expected:
        raise UserError(
            f"the checkpoint was trained with a teacher of hash {str(expected)[:12]}; the one of "
            f"this config has {str(found)[:12]}. Put the former back, or start a new run."
        )
