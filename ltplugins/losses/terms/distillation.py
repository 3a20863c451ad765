# SPDX-License-Identifier: MIT
"""Distillation of a teacher's class predictions.

Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531, section 2.
"""

import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.precision import full_precision


@full_precision
def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over N.

    Args:
        student: Float[N C], logits.
        teacher: Float[N C], logits; no gradient flows to them.
        temperature: T above 0.

    Returns:
        Scalar, at least float32.

    Raises:
        UserError: a temperature that cannot be.
    """
    if not temperature > 0:
        raise UserError(f"temperature: expected a number above 0, got {temperature}.")
    log_q = (student / temperature).log_softmax(dim=1)
    log_p = (teacher.detach() / temperature).log_softmax(dim=1).to(log_q.dtype)
    kl = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return temperature**2 * kl
