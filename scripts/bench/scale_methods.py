# SPDX-License-Identifier: MIT
"""What grows in BCL, ICCL, GML, SDCLR and focal: by images, by classes, by weights, by the batch.

The state is that of methods as a run builds them, and bytes are those of their buffers. Part of
scale.py.

Legend: B images, C classes, N training images, Q slots of the queue, F feature width, D dim.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timing import milliseconds
from torch import Tensor, nn

import ltplugins
from ltplugins.config.resolve import resolve
from ltplugins.data.augment.strength import Boost, StrengthTable
from ltplugins.host import METHODS
from ltplugins.losses.bcl import boost_strengths, image_losses
from ltplugins.losses.focal import focal_nt_xent
from ltplugins.losses.gml import contrastive_terms, gml_loss
from ltplugins.losses.iccl import centroid_loss, update_centroids
from ltplugins.losses.sdclr import magnitude_masks
from ltplugins.losses.terms.bases import nt_xent
from ltplugins.losses.terms.memory import update_memory
from ltplugins.stages.blocks import run_keys
from ltplugins.stages.compose import compose_packaged

B, DIM, QUEUE = 512, 128, 16_384


def build(name: str, *overrides: str, images: int = 10_000, classes: int = 10) -> Any:
    """A method of the packaged config with data of this size, which need not exist."""
    ltplugins.register()
    run = resolve(compose_packaged("pretrain", [f"method={name}", *overrides], run_keys))
    return METHODS[name](run.with_counts(images, classes).host).train()


def state_bytes(model: nn.Module, *prefixes: str, parameters: bool = False) -> int:
    """Bytes of the buffers, on request of the parameters too, whose names begin so."""
    tensors = dict(model.named_buffers()) | (dict(model.named_parameters()) if parameters else {})
    return sum(t.nbytes for name, t in tensors.items() if name.startswith(prefixes))


def class_shares(classes: int) -> Tensor:
    """Long-tailed by 100."""
    shares = 100.0 ** -torch.linspace(0, 1, classes)
    return shares / shares.sum()


def bcl_lines(n: int) -> dict[str, float]:
    """BCL's memory: an update of one batch, and the strengths of all."""
    model = build("bcl_simclr", images=n)
    memory, filled = model.bcl_memory, model.bcl_memory_filled
    memory.copy_(torch.rand(n))
    filled.fill_(True)
    indexes, losses = torch.randint(n, (B,)), torch.rand(B)
    shared = StrengthTable(Boost(), n)  # the data module's, which the worker processes read

    def renew() -> None:
        model.bcl_memory_strength.copy_(boost_strengths(memory, filled))
        shared.set(model.bcl_memory_strength)

    momentum = model.bcl.momentum
    return {
        "BCL memory, mark and strengths, MB": state_bytes(model, "bcl_") / 1e6,
        "BCL strengths that the workers share, MB": shared._values.nbytes / 1e6,
        "BCL memory update, ms": milliseconds(
            lambda: update_memory(memory, filled, indexes, losses, momentum), 11
        ),
        "BCL strengths of an epoch, ms": milliseconds(renew),
    }


def iccl_lines(classes: int) -> dict[str, float]:
    """Both branches of B / 2 pairs against the centroids, and the update by the clean one."""
    model = build("iccl", classes=classes)
    model.iccl_centroids.copy_(F.normalize(torch.randn(classes, DIM), dim=1))
    model.iccl_updates.fill_(50)
    z = torch.randn(2, B // 2, DIM).requires_grad_()
    own, other = torch.multinomial(class_shares(classes), B, replacement=True).chunk(2)
    lam = torch.rand(B // 2)

    def losses() -> None:
        centroids, filled = model.iccl_centroids.clone(), model.iccl_updates > 0
        options = {"temperature": model.iccl.temperature, "filled": filled}
        mixed = centroid_loss(z[0], centroids, own, other, lam, **options)
        clean = centroid_loss(z[1], centroids, own, own, torch.ones_like(lam), **options)
        (mixed + clean).backward()

    def update() -> None:
        state = (model.iccl_centroids, model.iccl_updates)
        moved = update_centroids(*state, z[1], own, model.iccl.centroid_momentum)
        for buffer, new in zip(state, moved, strict=True):
            buffer.copy_(new)

    return {
        "ICCL centroids and counters, MB": state_bytes(model, "iccl_") / 1e6,
        "ICCL centroid losses, ms": milliseconds(losses, 5),
        "ICCL centroids' update, ms": milliseconds(update, 5),
    }


def gml_lines(classes: int) -> dict[str, float]:
    """A full queue of ResNet-50's features: a batch enters, all become keys, the loss."""
    overrides = ("augmentations=small_grey_gml", "backbone.name=resnet50")
    size = f"method_kwargs.queue_size={QUEUE}"
    model = build("gml", *overrides, size, classes=classes)
    shares, queue = class_shares(classes), model.gml_queue
    model.set_class_counts((10_000 * shares / shares.max()).ceil().long())
    places = torch.arange(classes).repeat_interleave(queue.capacities)[torch.randperm(QUEUE)]
    for targets in places.split(B):
        queue.push(torch.randn(B, model.features_dim), targets, torch.randint(10**6, (B,)))
    assert queue.filled.all()

    targets, indexes = torch.multinomial(shares, B, replacement=True), torch.arange(B)
    feats = torch.randn(B, model.features_dim)
    q = F.normalize(torch.randn(B, model.gml.proj_output_dim), dim=1).requires_grad_()
    cosines = torch.rand(B, classes).requires_grad_()

    @torch.no_grad()
    def keys() -> Tensor:
        return F.normalize(model.momentum_projector(queue.stored().feats), dim=1)

    its_keys, stored = keys(), queue.stored()

    def loss() -> None:
        contrastive = contrastive_terms(
            q,
            its_keys,
            stored.targets,
            stored.indexes,
            targets,
            indexes,
            model.prior,
            temperature=model.gml_log_temperature.exp(),
        )
        gml_loss(cosines, targets, model.prior, contrastive, scale=model.gml.scale).total.backward()

    rings = ("class_counts", "gml_queue.heads", "gml_queue.capacities")
    slots = state_bytes(model, "gml_queue.") - state_bytes(model, *rings[1:])
    return {
        "GML queue's slots, MB": slots / 1e6,
        "GML class counts, heads and capacities, kB": state_bytes(model, *rings) / 1e3,
        "GML batch into the queue, ms": milliseconds(lambda: queue.push(feats, targets, indexes)),
        "GML keys of the whole queue, ms": milliseconds(keys),
        "GML loss, ms": milliseconds(loss),
    }


def sdclr_lines(backbone: str) -> dict[str, float]:
    """SDCLR's mask: made once an epoch, multiplied with the weights in each step."""
    model = build("sdclr_simclr", f"backbone.name={backbone}")
    weights = [model.get_parameter(name) for name, _ in model.sdclr_masks.named_buffers()]
    return {
        "SDCLR weights under the mask, millions": sum(w.numel() for w in weights) / 1e6,
        "SDCLR mask, MB": state_bytes(model, "sdclr_masks.") / 1e6,
        "SDCLR second BatchNorms, MB": state_bytes(model, "sdclr_norms.", parameters=True) / 1e6,
        "SDCLR mask of an epoch, ms": milliseconds(
            lambda: magnitude_masks(weights, model.sdclr.prune_ratio)
        ),
        "SDCLR masked weights of a step, ms": milliseconds(lambda: dict(model._pruned_tensors())),
    }


def batch_lines(batch: int) -> dict[str, float]:
    """The losses that hold B x B arrays, beside NT-Xent, which does not."""
    views, ids = torch.randn(2, batch, DIM).requires_grad_(), torch.arange(batch)
    forms: dict[str, Callable[[], Tensor]] = {
        "NT-Xent": lambda: nt_xent(views.flatten(0, 1), ids.repeat(2), 0.2),
        "focal": lambda: (
            focal_nt_xent(views.flatten(0, 1), ids.repeat(2), temperature=0.2, gamma=2.0).loss
        ),
    }
    found = {}
    for name, form in forms.items():
        found[f"{name}, ms"] = milliseconds(lambda f=form: f().backward(), 5)
        found[f"{name}, kept for the backward pass, MB"] = kept_bytes(form) / 1e6
    z_1, z_2 = views.detach()
    found["BCL losses of the images, ms"] = milliseconds(
        lambda: image_losses(z_1, z_2, ids, temperature=0.2), 5
    )
    return found


def kept_bytes(form: Callable[[], Tensor]) -> int:
    """Bytes of the different tensors that autograd keeps between forward and backward."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = form()
    assert loss.requires_grad
    return sum(tensor.nbytes for tensor in kept.values())


def stateless() -> list[str]:
    """Which of the methods that should keep no state beside SimCLR's keep none."""
    simclr = sum(tensor.nbytes for tensor in build("simclr").buffers())
    names = ("ts_simclr", "focal")
    return [name for name in names if sum(t.nbytes for t in build(name).buffers()) == simclr]
