# SPDX-License-Identifier: MIT
"""Features of a frozen backbone: extracted once, cached under a hash of all that decides them.

Legend: N images, B batch, D dim.
"""

import hashlib
import json
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ltplugins.core.errors import UserError
from ltplugins.core.files import atomic_path
from ltplugins.core.modes import looked_at
from ltplugins.core.precision import no_tf32

log = logging.getLogger(__name__)

CACHE_FORMAT = 2  # part of every key: raise it when extraction changes what it computes


def extract_features(
    backbone: nn.Module, batches: Iterable[Any], device: str | torch.device
) -> tuple[Tensor, Tensor]:
    """Run ``backbone`` in eval mode over ``batches``; leave it and all RNGs as they were.

    Args:
        backbone: returns Float[B D] or Float[B D 1 1] for images Float[B 3 H W].
        batches: ``(images, targets)`` or ``(indexes, views, targets)``; of several views the
            first is taken. A loader must not shuffle or drop, the caller relies on its order.
        device: where the forward pass runs; the backbone is moved there and back.

    Returns:
        Float[N D] in float32 and Int[N], both on the CPU.

    Raises:
        UserError: no images, or features that are not finite.
    """
    device = torch.device(device)
    feats, targets = [], []
    with preserved_rng(), looked_at(backbone, device), no_tf32():
        for batch in batches:
            images, labels = _images_and_targets(batch)
            out = backbone(images.to(device, non_blocking=True))
            feats.append(out.flatten(1).float().cpu())
            targets.append(labels.long().cpu())
    if not feats:
        raise UserError("there are no images to extract features from; check the data paths.")
    joined = torch.cat(feats)
    if not torch.isfinite(joined).all():
        raise UserError(
            "the backbone's features hold NaN or infinite values: training has diverged. "
            "Evaluate an earlier checkpoint or train with a lower learning rate."
        )
    return joined, torch.cat(targets)


def _images_and_targets(batch: Any) -> tuple[Tensor, Tensor]:
    if len(batch) not in (2, 3):
        raise UserError(
            f"expected batches (images, targets) or (indexes, views, targets), got {len(batch)} "
            "parts."
        )
    images = batch[-2]
    return (images if isinstance(images, Tensor) else images[0]), batch[-1]


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the states of Python's, NumPy's and torch's (CPU, CUDA) generators afterwards.

    Merely iterating a DataLoader draws its base seed from torch's global generator.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def weights_hash(module: nn.Module) -> str:
    """Return the sha256 over names, types, shapes and bytes of all parameters and buffers."""
    return state_hash(module.state_dict())


def state_hash(state: Mapping[str, Tensor]) -> str:
    """:func:`weights_hash` of a module with this ``state_dict``."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        data = value.detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {tuple(data.shape)}\n".encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def feature_key(backbone: nn.Module, data: str, transform: str) -> str:
    """Return the cache key of ``backbone``'s features on ``data`` seen through ``transform``.

    The module's structure (its ``repr``: strides, stem) counts as well as its weights.

    Args:
        data: identifies images and their order, e.g. "fashion-mnist/test sha256:...".
        transform: describes resizing, crop and normalisation, e.g. ``repr(transform)``.
    """
    parts = {
        "format": CACHE_FORMAT,
        "weights": weights_hash(backbone),
        "architecture": repr(backbone),
        "data": data,
        "transform": transform,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached_features(
    key: str, cache_dir: str | Path, compute: Callable[[], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return the features stored under ``key``, or compute and store them.

    The file holds a hash of its content, so that a damaged one is noticed, named in a warning and
    computed again. Two processes that write the same key do no harm: each file is whole.

    Args:
        key: from :func:`feature_key`.
        cache_dir: folder of the cache; made if missing.
        compute: returns Float[N D] features and Int[N] targets.
    """
    path = Path(cache_dir) / f"{key}.safetensors"
    if path.exists():
        try:
            return _load(path)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            log.warning("feature cache %s is damaged (%s): computing it again", path, error)
    feats, targets = compute()
    tensors = {"feats": feats.contiguous(), "targets": targets.contiguous()}
    with atomic_path(path) as tmp:
        save_file(tensors, tmp, metadata={"sha256": _content_hash(tensors)})
    return feats, targets


def _load(path: Path) -> tuple[Tensor, Tensor]:
    # Copied: where a tensor begins in a file decides which kernel a matrix product takes, and with
    # that its last bits, which must be those of features that were never written.
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in ("feats", "targets")}
        expected = (file.metadata() or {}).get("sha256")
    if _content_hash(tensors) != expected:
        raise ValueError("its content does not match its hash")
    return tensors["feats"], tensors["targets"]


def _content_hash(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
