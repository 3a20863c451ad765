# SPDX-License-Identifier: MIT
"""Linear maps for a method's networks, in double: for frozen losses and for tests over ranks.

BatchNorm normalises each rank's own batch, so that two ranks differ from one by design; without it
they must not.
"""

import torch
from torch import nn

from tests.kit.runs import step

SIZE, WIDTH = 8, 16


def linear_networks(model):
    """Replace backbone, heads, classifier and twins; equal on every call and every host."""
    torch.manual_seed(0)
    for prefix in ("", "momentum_"):
        if hasattr(model, f"{prefix}backbone"):
            net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, WIDTH))
            setattr(model, f"{prefix}backbone", net)
            setattr(model, f"{prefix}projector", nn.Linear(WIDTH, 8))
    if getattr(model, "predictor", None) is not None:
        model.predictor = nn.Linear(8, 8)
    model.classifier = nn.Linear(WIDTH, model.num_classes)
    return model.double()


def noise(n=6, seed=0, size=16, dtype=torch.float32):
    """A batch of two views of noise; three classes."""
    g = torch.Generator().manual_seed(seed)
    views = [torch.randn(n, 3, size, size, generator=g).to(dtype) for _ in range(2)]
    return [torch.arange(n), views, torch.arange(n) % 3]


def linear_noise(n=6, seed=0):
    """The same as :func:`linear_networks` take it."""
    return noise(n, seed, SIZE, torch.float64)


def five_losses(model, before=lambda number: None):
    """Losses of five SGD steps on five batches; ``before`` is called with each step's number."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for number in range(5):
        before(number)
        optimizer.zero_grad()
        loss = step(model, linear_noise(seed=number))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def loss_and_gradients(model, batch):
    """One step's loss and gradients, to be compared between ranks and one process."""
    loss = step(model, batch)
    loss.backward()
    grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), "grads": grads}
