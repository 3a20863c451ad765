# SPDX-License-Identifier: MIT
"""Two steps of any method on a linear backbone, whole or one rank's rows.

In double, BatchNorm left out: it would differ per rank by design. What the first step leaves behind
(memories, priors, queues, centroids) decides the second, whose loss and gradients are compared.
"""

from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from omegaconf import OmegaConf
from torch import nn

from tests.kit.cases import METHODS, WRAPPERS, Steps, base_of, case_of, cases_of, wrappers_of
from tests.kit.hosts import CLASSES, SIZE, tiny_cfg

IMAGES, POOL = 13, 11
# Rows of the joined batch: the last batch of an epoch is uneven over two ranks.
SIZES = {"even": 8, "uneven": 10}


class Trainer:
    """What a step asks of a trainer: an epoch in which every term is active."""

    current_epoch, world_size, global_step, max_epochs = 5, 1, 0, 10
    estimated_stepping_batches = 100


def build(name: str) -> Any:
    """The method with a linear backbone, in double, the same on every rank."""
    from ltplugins.host import METHODS as HOST_METHODS
    from ltplugins.host import prepare

    prepare()
    steps = case_of(name).steps
    torch.manual_seed(0)
    model: Any = HOST_METHODS[name](config(name, steps))
    torch.manual_seed(0)
    for part in ("backbone", "momentum_backbone"):
        if hasattr(model, part):
            linear = nn.Linear(3 * SIZE * SIZE, model.features_dim)
            setattr(model, part, nn.Sequential(nn.Flatten(), linear))
            getattr(model, part).requires_grad_(part == "backbone")
    _without_batch_norm(model)
    model._trainer = Trainer()
    model.log_dict = model.log = lambda *args, **kwargs: None
    model = model.double()
    steps.prepare(model)
    return model


def config(name: str, steps: Steps) -> Any:
    changes = {"data__num_samples": IMAGES, "data__num_large_crops": steps.views, **steps.config}
    cfg = tiny_cfg(base_of(name), scheduler__warmup_epochs=0, **changes)
    cfg.method = name
    if name in METHODS:
        cfg.method_kwargs = steps.kwargs
    for wrapper in wrappers_of(name):
        block = WRAPPERS[wrapper].steps.kwargs
        OmegaConf.update(cfg.method_kwargs, wrapper, block, force_add=True)
    return cfg


def _without_batch_norm(module: nn.Module) -> None:
    for key, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, key, nn.Identity())
        else:
            _without_batch_norm(child)


def joined_batch(name: str, split: str, seed: int) -> list[Any]:
    """The batch that one process sees; labels are missing where that is allowed, unevenly."""
    steps, g = case_of(name).steps, torch.Generator().manual_seed(seed)
    size = SIZES[split] if steps.rows != "images" or split == "even" else SIZES[split] - 1
    indexes = torch.randperm(IMAGES, generator=g)[:size]
    if steps.ood:
        pool = IMAGES + torch.randperm(POOL, generator=g)[:size]
        indexes = torch.where(torch.rand(size, generator=g) < 0.4, pool, indexes)
        indexes[0] = IMAGES + POOL - 1
    targets = indexes % CLASSES
    if not steps.labelled:
        targets = torch.where((indexes >= IMAGES) | (indexes == indexes[1]), -1, targets)
    views = [torch.randn(size, 3, SIZE, SIZE, generator=g).double() for _ in range(steps.views)]
    return [indexes, views, targets]


def own_rows(name: str, size: int, rank: int, world: int) -> torch.Tensor:
    """The rows of a rank: pairs and halves as their samplers share them, images in order.

    Then the ranks' keys, gathered, are in the order of the joined batch, and so is a queue.
    """
    rows, steps = torch.arange(size), case_of(name).steps
    if steps.rows == "pairs":
        return rows.view(-1, 2)[rank::world].reshape(-1)
    if steps.rows == "halves":
        return torch.cat([half[rank::world] for half in rows.chunk(2)])
    return rows.tensor_split(world)[rank]


def two_steps(
    name: str, split: str, rank: int = 0, world: int = 1, device: str = "cpu"
) -> dict[str, Any]:
    """Loss and gradients of the second of two steps, and what is there after it."""
    model = build(name).to(device)
    for seed in (1, 2):
        indexes, views, targets = joined_batch(name, split, seed)
        rows = own_rows(name, len(indexes), rank, world)
        model.zero_grad()
        torch.manual_seed(seed)
        batch = [indexes[rows], [v[rows] for v in views], targets[rows]]
        loss = model.training_step(move_data_to_device(batch, torch.device(device)), 0)
        loss.backward()
        more = _after(name, model)
    grads = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    buffers = {**dict(model.named_buffers()), **more}
    return {"loss": loss.detach(), "grads": grads, "buffers": buffers}


def _after(name: str, model: Any) -> dict[str, Any]:
    """What is done after a step, by each of the method's wrappers."""
    found = [case.steps.after(model) or {} for case in cases_of(name)]
    return {key: value for each in found for key, value in each.items()}


def five_losses(name: str) -> list[float]:
    """Losses of five steps of SGD from the same start, on five batches."""
    model = build(name)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.001)
    losses = []
    for seed in range(5):
        optimizer.zero_grad()
        torch.manual_seed(seed)
        loss = model.training_step(joined_batch(name, "even", seed), seed)
        loss.backward()
        optimizer.step()
        _after(name, model)
        losses.append(loss.item())
    return losses
