# SPDX-License-Identifier: MIT
"""Sources by name: the embedded packs, Fashion-MNIST, CIFAR-10/100 and STL-10."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from einops import rearrange
from filelock import FileLock
from torchvision import datasets

from ltplugins.core.errors import UserError
from ltplugins.data.sources.base import ArraySource
from ltplugins.data.sources.idx import find_fashion_idx, read_fashion_idx
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


def fashion_pack(part: Part) -> ArraySource:
    """Open the embedded pack; ``probe`` has 100 images a class that are not in ``train``."""
    pack = load_pack()
    labels = pack[f"{part}_labels"].astype(np.int64)
    return ArraySource(pack[f"{part}_images"], labels, CLASS_NAMES, RECORDS["fashion_pack"])


def emoji_pack(part: Part) -> ArraySource:
    """Open the embedded emoji, a pool of out-of-distribution images for ``data.ood``.

    Raises:
        UserError: another part than ``train`` was asked for.
    """
    if part != "train":
        raise UserError(
            f"emoji_pack has no {part} part: it is a pool for data.ood, not a set to evaluate on."
        )
    pack = load_emoji()
    labels = pack["labels"].astype(np.int64)
    return ArraySource(pack["images"], labels, EMOJI_CATEGORIES, RECORDS["emoji_pack"])


def fashion_mnist(root: str | Path | None, part: Part) -> ArraySource:
    """Open the whole Fashion-MNIST, from ``root``, Debian's package, or torchvision's download.

    Raises:
        UserError: not there and no network, or damaged files.
    """
    official = "test" if part == "test" else "train"
    for folder in (root, DEBIAN_FASHION):
        if folder is not None and find_fashion_idx(folder, official):
            images, labels = read_fashion_idx(folder, official)
            return ArraySource(images, labels, CLASS_NAMES, RECORDS["fashion_mnist"])
    data = _torchvision("fashion_mnist", datasets.FashionMNIST, root, train=official == "train")
    images, labels = data.data.numpy(), data.targets.numpy()
    return ArraySource(images, labels, CLASS_NAMES, RECORDS["fashion_mnist"])


def cifar(name: str, root: str | Path | None, part: Part) -> ArraySource:
    """Open CIFAR-10 or CIFAR-100; ``probe`` is the whole, balanced training part.

    Raises:
        UserError: not there and no network.
    """
    cls = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    data = _torchvision(name, cls, root, train=part != "test")
    return ArraySource(data.data, np.asarray(data.targets), data.classes, RECORDS[name])


def stl10(root: str | Path | None, part: Part, *, unlabelled: bool) -> ArraySource:
    """Open STL-10; ``unlabelled`` makes the training part "train+unlabeled", as in solo-learn.

    Unlabelled images have target -1.

    Raises:
        UserError: not there and no network.
    """
    train = "train+unlabeled" if unlabelled else "train"
    split = {"train": train, "probe": "train", "test": "test"}[part]
    data = _torchvision("stl10", datasets.STL10, root, split=split)
    images = np.ascontiguousarray(rearrange(data.data, "n c h w -> n h w c"))
    return ArraySource(images, data.labels.astype(np.int64), data.classes, RECORDS["stl10"])


def _torchvision(name: str, cls: Callable[..., Any], root: str | Path | None, **kwargs: Any) -> Any:
    """Open a torchvision set; download it where it is absent."""
    root = Path(root or DEFAULT_ROOT)
    try:
        return cls(str(root), download=False, **kwargs)
    except RuntimeError:
        log.info("%s is not in %s; downloading it", name, root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Several ranks start at once; one downloads, the others wait and find the files.
        with FileLock(root / f".{name}.lock"):
            return cls(str(root), download=True, **kwargs)
    except (RuntimeError, OSError) as error:
        file, page = _FILES[name]
        raise UserError(
            f"{name} is not in {root} and the download failed ({error}). "
            f"Put {file} (from {page}) into {root}, or set data.train_path to the folder "
            f"that has it. Without any download: data.dataset=fashion_pack."
        ) from None
