# SPDX-License-Identifier: MIT
"""How much memory a training will need, told before it starts, and what to do if there is less.

An estimate: what one image's forward pass keeps for the backward pass, times the images of a step;
weights, gradients and the optimizer's state. Heads, queues and the decoding processes come on top.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.core.modes import looked_at

log = logging.getLogger(__name__)

_GB = 1e9
_IMAGES = 2  # of the forward pass that is measured
# Two numbers a parameter beside the weight and its gradient: what Adam keeps, and what most need.
_COPIES = 4


def tell_memory(run: RunConfig, needed: int, device: torch.device) -> None:
    """Say the device and about how much of its memory is needed; warn where there is less.

    Args:
        run: its batch and its views.
        needed: see :func:`needed_bytes`.
        device: of the training.
    """
    there = available_bytes(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    of = f" of {there / _GB:.1f} GB" if there is not None else ""
    log.info(
        "device: %s; about %.1f GB of memory%s", f"{device} ({name})" if name else device,
        needed / _GB, of,
    )  # fmt: skip
    if there is not None and needed > there:
        batch = run.optimizer.batch_size
        smaller = batch
        while smaller > 3 and needed * smaller / batch > 0.8 * there:
            smaller //= 2
        log.warning(
            "this will hardly fit: the system may end the run without a word. %s, or use a GPU.",
            _way_out(batch, smaller),
        )


def refuse_if_out_of_memory(error: RuntimeError, run: RunConfig) -> None:
    """An allocation that failed, of a GPU or the machine, as a sentence; other errors are left.

    Args:
        error: of the training.
        run: its batch.

    Raises:
        UserError: there was too little memory.
    """
    # On a CPU it has no type of its own.
    is_it = isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    if is_it:
        batch = run.optimizer.batch_size
        where = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "this machine"
        raise UserError(
            f"out of memory: {where} has too little for a step of {batch} images. "
            f"{_way_out(batch, max(batch // 2, 2))}."
        ) from None


def _way_out(batch: int, smaller: int) -> str:
    return (
        f"Set optimizer.batch_size={smaller} accumulate_grad_batches={-(-batch // smaller)}, "
        f"smaller crops (augmentations.0.crop_size) or a smaller backbone.name"
    )


def needed_bytes(run: RunConfig, model: Any) -> int:
    """Estimate the bytes of one process's training step.

    Args:
        run: its batch and its views.
        model: the host's method, which has a backbone.

    Raises:
        UserError: the backbone does not take images of the views' size.
    """
    kept = 0
    by_size: dict[int, int] = {}  # crops of an image, by their size
    for block in run.augmentations:
        by_size[block.crop_size] = by_size.get(block.crop_size, 0) + block.num_crops
    for size, crops in by_size.items():
        try:
            of_image = kept_bytes(model.backbone, size)
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
            raise UserError(
                f"backbone.name: {run.backbone.name} does not take images of {size} pixels "
                f"({' '.join(str(error).split())[:200]}). Set crop_size of the augmentations to "
                f"what it was made for, or backbone.kwargs (img_size, patch_size) to fit."
            ) from error
        kept += of_image * crops * run.optimizer.batch_size
        kept += 3 * 4 * size * size * crops * run.optimizer.batch_size  # the images themselves
    precision = str(run.trainer.get("precision", "32"))
    kept = kept // 2 if "16" in precision else kept
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return kept + _COPIES * weights


def kept_bytes(backbone: nn.Module, size: int) -> int:
    """Measure what the backbone keeps of one image for its backward pass.

    Neither weights nor statistics nor any generator change.
    """
    own = {t.data_ptr() for t in (*backbone.parameters(), *backbone.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    param = next(backbone.parameters())
    images = torch.zeros(_IMAGES, 3, size, size, device=param.device, dtype=param.dtype)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t)
    with looked_at(backbone, grads=True), hooks:
        backbone(images)
    return sum(kept.values()) // _IMAGES


def available_bytes(device: torch.device) -> int | None:
    """Free memory of the device; on a CPU of the machine or of its container. None: not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    limits = [_meminfo().get("MemAvailable"), _container()]
    return min((n for n in limits if n is not None), default=None)


def _meminfo() -> Mapping[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return {}
    return {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if "kB" in line}


def _container() -> int | None:
    """What is left below the limit of a container (cgroup 2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = (folder / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(limit) - int(used) if limit.isdigit() else None
