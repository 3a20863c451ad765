# SPDX-License-Identifier: MIT
"""What each wrapper and method of the registry needs to be compared over ranks: one line each.

A step is taken twice on a linear backbone in double, BatchNorm left out (it would differ per rank
by design), and what the first leaves behind (memories, priors, queues, centroids) decides the
second, whose loss and gradients are compared.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from torch import nn

from tests.kit.hosts import NAMES, SIZE, tiny_cfg

IMAGES, POOL, CLASSES = 13, 11, 3
# Rows of the joined batch: the last batch of an epoch is uneven over two ranks.
SIZES = {"even": 8, "uneven": 10}


@dataclass(frozen=True)
class Case:
    """A wrapper's or method's line.

    Attributes:
        kwargs: ``method_kwargs.<name>`` of a wrapper, ``method_kwargs`` of a method.
        config: further keys, "__" for the dot.
        views: of an image.
        rows: how the sampler shares a batch: by images, by pairs of neighbours, or by halves.
        ood: some images are of the OOD pool.
        labelled: every image has a label.
        prepare: called on the model before the first step, its networks exchanged.
        between: called on the model after the first step.
        bases: that the wrapper takes.
    """

    kwargs: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    views: int = 2
    rows: Literal["images", "pairs", "halves"] = "images"
    ood: bool = False
    labelled: bool = False
    prepare: Callable[[Any], None] = lambda model: None
    between: Callable[[Any], None] = lambda model: None
    bases: tuple[str, ...] = tuple(NAMES)


def prune(model: Any) -> None:
    """SDCLR's mask of the linear backbone, which has no BatchNorm to copy."""
    from ltplugins.methods.sdclr import SDCLRMixin

    model.sdclr_norms = nn.Module()
    model._allocate_masks()
    SDCLRMixin.on_train_epoch_start(model)


GH = {"num_directions": 3, "warmup": 0, "ramp": 0, "num_iters": 20}
COLT = {"topk": 4, "warmup": 1, "interval": 2, "budget": 5, "num_clusters": 3}

WRAPPERS = {
    "gh": Case(GH, between=lambda model: model.recompute_prior()),
    "mv": Case({"lower": 0.02, "upper": 0.99}, views=3),
    "colt": Case(
        COLT, {"data__ood": {"dataset": "emoji_pack"}, "data__sampler": "id_plus_ood"}, ood=True
    ),
    "ts": Case(bases=("simclr", "supcon", "mocov2plus")),
    "sdclr": Case(prepare=prune),
    "bcl": Case(),
}
METHODS = {
    "mttv": Case(config={"data__sampler": "paired"}, rows="pairs"),
    "focal": Case(),
    "iccl": Case(
        {"curriculum": "constant"},
        {"data__sampler": "two_branch"},
        rows="halves",
        labelled=True,
    ),
    # Room for both steps: which of a class's keys are overwritten depends on the ranks' order.
    "gml": Case({"queue_size": 60, "class_counts": [5, 4, 4]}, views=3, labelled=True),
}
COMPOSED = ("gh_colt_simclr", "gh_ts_simclr", "gh_sdclr_simclr", "bcl_sdclr_simclr")


class Trainer:
    """What a step asks of a trainer: an epoch in which every term is active."""

    current_epoch, world_size, global_step, max_epochs = 5, 1, 0, 10
    estimated_stepping_batches = 100


def names() -> list[str]:
    """Every method that is compared: the host's bases, each wrapper over each, and our own."""
    wrapped = [f"{wrapper}_{base}" for wrapper, case in WRAPPERS.items() for base in case.bases]
    return [*NAMES, *wrapped, *COMPOSED, *METHODS]


def case_of(name: str) -> tuple[str, Case]:
    """The base's name and the case; of composed wrappers the innermost says what the data are."""
    if name in METHODS:
        return name, METHODS[name]
    *wrappers, base = (name if name not in NAMES else f"none_{name}").split("_", 1)
    while base not in NAMES:
        wrapper, base = base.split("_", 1)
        wrappers.append(wrapper)
    return base, WRAPPERS.get(wrappers[-1], Case())


def build(name: str) -> Any:
    """The method with a linear backbone, in double, the same on every rank."""
    import ltplugins
    from ltplugins.host import METHODS as HOST_METHODS

    ltplugins.register()
    base, case = case_of(name)
    changes = {"data__num_samples": IMAGES, "data__num_large_crops": case.views, **case.config}
    cfg = tiny_cfg(base, scheduler__warmup_epochs=0, **changes)
    cfg.method = name
    if name in METHODS:
        cfg.method_kwargs = case.kwargs
    else:
        for wrapper in (w for w in WRAPPERS if f"{w}_" in name.removesuffix(base)):
            OmegaConf.update(cfg.method_kwargs, wrapper, WRAPPERS[wrapper].kwargs, force_add=True)
    torch.manual_seed(0)
    model: Any = HOST_METHODS[name](cfg)
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
    case.prepare(model)
    return model


def _without_batch_norm(module: nn.Module) -> None:
    for key, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, key, nn.Identity())
        else:
            _without_batch_norm(child)


def joined_batch(case: Case, split: str, seed: int) -> list[Any]:
    """The batch that one process sees; labels are missing where that is allowed, unevenly."""
    g = torch.Generator().manual_seed(seed)
    size = SIZES[split] if case.rows != "images" or split == "even" else SIZES[split] - 1
    indexes = torch.randperm(IMAGES, generator=g)[:size]
    if case.ood:
        pool = IMAGES + torch.randperm(POOL, generator=g)[:size]
        indexes = torch.where(torch.rand(size, generator=g) < 0.4, pool, indexes)
        indexes[0] = IMAGES + POOL - 1
    targets = indexes % CLASSES
    if not case.labelled:
        targets = torch.where((indexes >= IMAGES) | (indexes == indexes[1]), -1, targets)
    views = [torch.randn(size, 3, SIZE, SIZE, generator=g).double() for _ in range(case.views)]
    return [indexes, views, targets]


def own_rows(case: Case, size: int, rank: int, world: int) -> torch.Tensor:
    """The rows of a rank, as the samplers share them."""
    rows = torch.arange(size)
    if case.rows == "pairs":
        return rows.view(-1, 2)[rank::world].reshape(-1)
    if case.rows == "halves":
        return torch.cat([half[rank::world] for half in rows.chunk(2)])
    return rows[rank::world]


def two_steps(name: str, split: str, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """Loss and gradients of the second of two steps, and the buffers after it."""
    model, (_, case) = build(name), case_of(name)
    for seed in (1, 2):
        indexes, views, targets = joined_batch(case, split, seed)
        rows = own_rows(case, len(indexes), rank, world)
        model.zero_grad()
        torch.manual_seed(seed)
        loss = model.training_step([indexes[rows], [v[rows] for v in views], targets[rows]], 0)
        loss.backward()
        case.between(model)
    grads = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), "grads": grads, "buffers": dict(model.named_buffers())}
