# SPDX-License-Identifier: MIT
"""Linear maps for a method's networks, in double: for frozen losses and for tests over ranks.

BatchNorm normalises each rank's own batch, so that two ranks differ from one by design; without it
they must not.
"""

import torch
from torch import nn

from tests.kit.runs import step

SIZE, WIDTH = 8, 16


def linear_maps(model, width=None):
    """Replace backbone, projector and predictor, and the twins, at the model's width or another."""
    width = width or model.features_dim
    torch.manual_seed(0)
    for prefix in ("", "momentum_"):
        if hasattr(model, f"{prefix}backbone"):
            net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, width))
            setattr(model, f"{prefix}backbone", net.requires_grad_(not prefix))
        if hasattr(model, f"{prefix}projector"):
            projector = nn.Linear(width, 8).requires_grad_(not prefix)
            setattr(model, f"{prefix}projector", projector)
    if getattr(model, "predictor", None) is not None:
        model.predictor = nn.Linear(8, 8)
    return model.double()


def linear_networks(model):
    """The same, the classifier too, equal on every call and every host."""
    linear_maps(model, WIDTH)
    model.classifier = nn.Linear(WIDTH, model.num_classes)  # drawn last
    return model.double()


def noise(n=6, seed=0, size=16, dtype=torch.float32):
    """A batch of two views of noise; three classes."""
    g = torch.Generator().manual_seed(seed)
    views = [torch.randn(n, 3, size, size, generator=g).to(dtype) for _ in range(2)]
    return [torch.arange(n), views, torch.arange(n) % 3]


def linear_noise(n=6, seed=0):
    """The same as :func:`linear_networks` take it."""
    return noise(n, seed, SIZE, torch.float64)


def views_batch(n=8, seed=0, views=3):
    """Views and labels that are drawn, of other images with each seed; in double."""
    g = torch.Generator().manual_seed(seed)
    images = [torch.randn(n, 3, SIZE, SIZE, generator=g).double() for _ in range(views)]
    return [torch.arange(n) + 10 * seed, images, torch.randint(0, 3, (n,), generator=g)]


def five_losses(model, before=lambda number: None, *, batch=linear_noise, lr=0.1):
    """Losses of five SGD steps on five batches.

    Args:
        before: called with each step's number.
        batch: gives the batch of a ``seed``.
    """
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for number in range(5):
        before(number)
        optimizer.zero_grad()
        loss = step(model, batch(seed=number))
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
