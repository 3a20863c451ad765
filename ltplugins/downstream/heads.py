# SPDX-License-Identifier: MIT
"""Classifiers on a backbone's features, and what re-balances one after its training.

cRT, tau-normalisation and LWS: Kang et al., "Decoupling Representation and Classifier for
Long-Tailed Recognition", ICLR 2020, https://arxiv.org/abs/1910.09217
Official code: https://github.com/facebookresearch/classifier-balancing (not read for this)

Known differences from the paper: cRT and LWS are trained on the features of the training images as
they are at the end, without augmentation; a step is the same for the same seed, and no gradient
reaches the backbone.

Legend: N images, D feature width, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltplugins.data.samplers.class_aware import ClassAwareSampler
from ltplugins.methods.parts.cosine_head import CosineClassifier

TAUS = tuple(i / 10 for i in range(21))  # 0: as trained; the paper's best lie from 0.5 to 1


class ScaledCosine(CosineClassifier):
    """``scale`` times the cosines of features and class weights: Float[N D] -> Float[N C]."""

    def __init__(self, dim: int, num_classes: int, scale: float) -> None:
        super().__init__(dim, num_classes)
        self.scale = scale

    def forward(self, feats: Tensor) -> Tensor:
        return self.scale * super().forward(feats)


def build_head(name: str, dim: int, num_classes: int, scale: float) -> nn.Module:
    """The classifier that is trained: of ``cosine`` a cosine one, of all others a linear one."""
    if name == "cosine":
        return ScaledCosine(dim, num_classes, scale)
    return nn.Linear(dim, num_classes)


@dataclass(frozen=True)
class Refit:
    """How cRT and LWS train: SGD with momentum 0.9, its rate along one cosine to 0."""

    epochs: int
    lr: float
    batch_size: int
    seed: int


@torch.no_grad()
def tau_normalised(head: nn.Linear, tau: float) -> nn.Linear:
    """A classifier whose weights are divided by their norms to the power tau, without bias (eq. 5).

    >>> head = nn.Linear(2, 2)
    >>> weight = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    >>> head.weight = nn.Parameter(weight)
    >>> tau_normalised(head, 1.0).weight.tolist()[0]
    [0.6000000238418579, 0.800000011920929]
    """
    norms = head.weight.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return linear(head.weight / norms**tau, torch.zeros_like(head.bias))


def choose_tau(head: nn.Linear, feats: Tensor, targets: Tensor) -> float:
    """The tau of TAUS with the best balanced accuracy; of several equal ones the smallest.

    Args:
        feats, targets: Float[N D] and Int[N] of images that the classifier was not trained on.
    """
    scores = {
        tau: balanced_hits(tau_normalised(head, tau)(feats).argmax(dim=1), targets) for tau in TAUS
    }
    return max(TAUS, key=lambda tau: (scores[tau], -tau))


def balanced_hits(preds: Tensor, targets: Tensor) -> float:
    """Mean over the classes that are there of their images' top-1 accuracy, from 0 to 1.

    >>> balanced_hits(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 2]))
    0.5
    """
    hits = preds == targets
    return float(torch.stack([hits[targets == c].double().mean() for c in targets.unique()]).mean())


def retrained(head: nn.Linear, feats: Tensor, targets: Tensor, how: Refit) -> nn.Linear:
    """cRT: a classifier drawn anew and trained on class-balanced draws.

    Args:
        feats, targets: Float[N D] and Int[N] of the training images.
    """
    with torch.random.fork_rng():
        torch.manual_seed(how.seed)
        fresh = nn.Linear(head.in_features, head.out_features)
    fresh = fresh.to(feats)
    _fit(fresh, list(fresh.parameters()), feats, targets, how)
    return fresh


def rescaled(head: nn.Linear, feats: Tensor, targets: Tensor, how: Refit) -> nn.Linear:
    """LWS: a factor per class, trained on class-balanced draws; directions as they are (eq. 6).

    logit_c = f_c w_c . x, without bias, f from 1 on. Arguments as of :func:`retrained`.
    """
    factors = nn.Parameter(feats.new_ones(head.out_features))
    weight = head.weight.detach().to(feats)
    _fit(lambda x: factors * (x @ weight.T), [factors], feats, targets, how)
    return linear(factors.detach()[:, None] * weight, torch.zeros_like(factors))


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer of these values."""
    size = weight.shape[1], weight.shape[0]
    made = nn.utils.skip_init(nn.Linear, *size, device=weight.device, dtype=weight.dtype)
    made.load_state_dict({"weight": weight, "bias": bias})
    return made


@torch.enable_grad()
def _fit(
    logits: Callable[[Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
    feats: Tensor,
    targets: Tensor,
    how: Refit,
) -> None:
    """Minimise cross-entropy over N class-balanced draws an epoch."""
    draws = ClassAwareSampler(targets.cpu().numpy(), seed=how.seed)
    optimizer = torch.optim.SGD(parameters, lr=how.lr, momentum=0.9)
    steps = how.epochs * -(-len(targets) // how.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for epoch in range(how.epochs):
        draws.set_epoch(epoch)
        for places in torch.tensor(list(draws)).split(how.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(logits(feats[places]), targets[places]).backward()
            optimizer.step()
            schedule.step()
