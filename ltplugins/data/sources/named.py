# SPDX-License-Identifier: MIT
"""Sources by name: the embedded packs, Fashion-MNIST, CIFAR-10/100 and STL-10."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from einops import rearrange
from filelock import FileLock
from torchvision import datasets

from ltplugins.core.errors import UserError
from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.base import ArraySource
from ltplugins.data.sources.idx import find_fashion_idx, read_fashion_idx
from ltplugins.data.sources.land.source import pool_source, tile_source
from ltplugins.data.sources.packs import CLASS_NAMES, EMOJI_CATEGORIES, load_emoji, load_pack
from ltplugins.data.sources.records import RECORDS

log = logging.getLogger(__name__)

Part = Literal["train", "probe", "test"]
DEFAULT_ROOT = "datasets"
DEBIAN_FASHION = "/usr/share/datasets/fashion-mnist"

# Which file to put where when there is no network: (file, page it is found on).
_FILES = {
    "cifar10": ("cifar-10-python.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "cifar100": ("cifar-100-python.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "stl10": ("stl10_binary.tar.gz", "https://cs.stanford.edu/~acoates/stl10"),
    "fashion_mnist": (
        "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz",
        "https://github.com/zalandoresearch/fashion-mnist",
    ),
}


class _Arrays(NamedTuple):
    """uint8 [N, H, W] or [N, H, W, 3] images, Int[N] labels (-1 = none), names by class id."""

    images: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]


def named_source(cfg: DataConfig, part: Part) -> ArraySource:
    """Open the set that ``data.dataset`` names: embedded, on disk, or downloaded.

    Raises:
        UserError: not there and no network, damaged files, or a part that the set does not have.
    """
    name, root = cfg.dataset, cfg.train_path
    if name == "land_pack":
        return tile_source(cfg.land, part)
    if name == "land_pool":
        return pool_source(cfg.land, part)
    if name == "fashion_pack":
        arrays = _fashion_pack(part)
    elif name == "emoji_pack":
        arrays = _emoji_pack(part)
    elif name == "fashion_mnist":
        arrays = _fashion_mnist(root, part)
    elif name == "stl10":
        # A long-tailed subset needs labels; without one, solo-learn's train+unlabeled is used.
        imbalanced = cfg.imbalance is not None and cfg.imbalance.kind != "none"
        arrays = _stl10(root, part, unlabelled=not imbalanced)
    else:
        arrays = _cifar(name, root, part)
    return ArraySource(*arrays, RECORDS[name])


def _fashion_pack(part: Part) -> _Arrays:
    """``probe`` has 100 images a class that are not in ``train``."""
    pack = load_pack()
    return _Arrays(pack[f"{part}_images"], pack[f"{part}_labels"], CLASS_NAMES)


def _emoji_pack(part: Part) -> _Arrays:
    """A pool of out-of-distribution images for ``data.ood``: ``train`` is its only part."""
    if part != "train":
        raise UserError(
            f"emoji_pack has no {part} part: it is a pool for data.ood, not a set to evaluate on."
        )
    pack = load_emoji()
    return _Arrays(pack["images"], pack["labels"], EMOJI_CATEGORIES)


def _fashion_mnist(root: str | None, part: Part) -> _Arrays:
    """The whole set, from ``root``, Debian's package, or torchvision's download."""
    official = "test" if part == "test" else "train"
    for folder in (root, DEBIAN_FASHION):
        if folder is not None and find_fashion_idx(folder, official):
            return _Arrays(*read_fashion_idx(folder, official), CLASS_NAMES)
    data = _torchvision("fashion_mnist", datasets.FashionMNIST, root, train=official == "train")
    return _Arrays(data.data.numpy(), data.targets.numpy(), CLASS_NAMES)


def _cifar(name: str, root: str | None, part: Part) -> _Arrays:
    """CIFAR-10 or CIFAR-100; ``probe`` is the whole, balanced training part."""
    cls = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    data = _torchvision(name, cls, root, train=part != "test")
    return _Arrays(data.data, np.asarray(data.targets), data.classes)


def _stl10(root: str | None, part: Part, *, unlabelled: bool) -> _Arrays:
    """STL-10; ``unlabelled`` makes the training part "train+unlabeled", as in solo-learn."""
    train = "train+unlabeled" if unlabelled else "train"
    split = {"train": train, "probe": "train", "test": "test"}[part]
    data = _torchvision("stl10", datasets.STL10, root, split=split)
    images = np.ascontiguousarray(rearrange(data.data, "n c h w -> n h w c"))
    return _Arrays(images, data.labels, data.classes)


def _torchvision(name: str, cls: Callable[..., Any], root: str | None, **kwargs: Any) -> Any:
    """Open a torchvision set; download it where it is absent."""
    folder = Path(root or DEFAULT_ROOT)
    try:
        return cls(str(folder), download=False, **kwargs)
    except RuntimeError:
        log.info("%s is not in %s; downloading it", name, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Several ranks start at once; one downloads, the others wait and find the files.
        with FileLock(folder / f".{name}.lock"):
            return cls(str(folder), download=True, **kwargs)
    except (RuntimeError, OSError) as error:
        file, page = _FILES[name]
        raise UserError(
            f"{name} is not in {folder} and the download failed ({error}). "
            f"Put {file} (from {page}) into {folder}, or set data.train_path to the folder "
            f"that has it. Without any download: data.dataset=fashion_pack."
        ) from None
