# SPDX-License-Identifier: MIT
"""A tiny run: generated images, a tiny network, seconds on a CPU."""

import pickle
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from tests.kit.cases import WRAPPERS, base_of, case_of, wrappers_of
from tests.kit.hosts import SOLO_HEADS, make_cfg
from tests.kit.views import VIEW

KWARGS = {
    "simclr": {"proj_hidden_dim": 16, "proj_output_dim": 8, "temperature": 0.2},
    "supcon": {"proj_hidden_dim": 16, "proj_output_dim": 8, "temperature": 0.2},
    "byol": {"proj_hidden_dim": 16, "proj_output_dim": 8, "pred_hidden_dim": 16},
    "simsiam": {"proj_hidden_dim": 16, "proj_output_dim": 8, "pred_hidden_dim": 16},
    "mocov2plus": {
        "proj_hidden_dim": 16,
        "proj_output_dim": 8,
        "temperature": 0.2,
        "queue_size": 64,
    },
    "barlow_twins": {"proj_hidden_dim": 16, "proj_output_dim": 8},
    "vicreg": {"proj_hidden_dim": 16, "proj_output_dim": 8},
}


def write_arrays(path: Path, counts: tuple[int, ...] = (24, 12, 6), seed: int = 0) -> Path:
    """Write an .npz of random 16-pixel images whose brightness tells the class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    base = 40 + 60 * labels[:, None, None, None]
    images = (base + rng.integers(0, 60, (len(labels), 16, 16, 3))).astype(np.uint8)
    np.savez(path, images=images, labels=labels)
    return path


def write_cifar10(root: Path, per_file: int = 2) -> None:
    """Write CIFAR-10's six pickled files; file k holds classes k and 9 - k in turn."""
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    files = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    for k, name in enumerate(files):
        data = np.full((per_file, 3072), k, dtype=np.uint8)
        data[1::2, 1024:2048] = 200  # the green plane of every second image
        with open(base / name, "wb") as f:
            pickle.dump({"data": data, "labels": [k, 9 - k] * (per_file // 2)}, f)
    with open(base / "batches.meta", "wb") as f:
        pickle.dump({"label_names": [f"name{c}" for c in range(10)]}, f)


def write_cifar100(root: Path) -> None:
    """Write CIFAR-100's two pickled files: 6 and 3 black images of one class each."""
    base = root / "cifar-100-python"
    base.mkdir()
    for name, count in [("train", 6), ("test", 3)]:
        data = np.zeros((count, 3072), dtype=np.uint8)
        with open(base / name, "wb") as f:
            pickle.dump({"data": data, "fine_labels": list(range(count))}, f)
    with open(base / "meta", "wb") as f:
        pickle.dump({"fine_label_names": [f"fine{c}" for c in range(100)]}, f)


def write_folder(root: Path, counts: tuple[int, ...], size: int = 32, seed: int = 0) -> Path:
    """Write an image folder of random PNGs, one sub-folder a class."""
    rng = np.random.default_rng(seed)
    for label, count in enumerate(counts):
        (root / f"class{label}").mkdir(parents=True)
        for i in range(count):
            pixels = 50 * label + rng.integers(0, 60, (size, size, 3))
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(root / f"class{label}/{i}.png")
    return root


def tiny_config(folder: Path, method: str = "gh_simclr", **changes: object) -> DictConfig:
    """Config of a run of any method on generated arrays; ``a__b=c`` sets ``a.b``."""
    cfg = plain_config(folder, method)
    run = case_of(method).run
    base = base_of(method)
    if base in (*KWARGS, *SOLO_HEADS):
        cfg.method_kwargs = KWARGS.get(base) or make_cfg(base).method_kwargs
        cfg.method_kwargs.update({w: WRAPPERS[w].run.kwargs for w in wrappers_of(method)})
    else:
        cfg.method_kwargs = run.kwargs
    if "colt" in wrappers_of(method):
        pool = folder / "ood.npz"
        if not pool.exists():
            write_arrays(pool, (6, 6, 6, 6), seed=2)
        cfg.data.ood = {"dataset": "custom", "format": "arrays", "train_path": str(pool)}
    for key, value in {**run.config, **changes}.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    return cfg


def plain_config(folder: Path, method: str) -> DictConfig:
    """Whatever runs of all methods have in common."""
    train, test = folder / "train.npz", folder / "test.npz"
    if not train.exists():
        write_arrays(train)
        write_arrays(test, (8, 8, 8), seed=1)
    return OmegaConf.create(
        {
            "name": "tiny",
            "method": method,
            "method_kwargs": {},
            "backbone": {"name": "test_resnet", "small_stem": False},
            "data": {
                "dataset": "custom",
                "format": "arrays",
                "train_path": str(train),
                "val_path": str(test),
                "engine": "batched",
                "num_workers": 0,
            },
            "augmentations": [VIEW],
            "optimizer": {
                "name": "sgd",
                "batch_size": 8,
                "lr": 0.05,
                "classifier_lr": 0.1,
                "weight_decay": 1e-4,
            },
            "scheduler": {"name": "warmup_cosine", "warmup_epochs": 1},
            "momentum": {"base_tau": 0.9, "final_tau": 1.0},
            "max_epochs": 3,
            "seed": 0,
            "accelerator": "cpu",
            "devices": 1,
            "output_dir": str(folder / "run"),
            "eval": {"knn": {"k": 3}, "linear": {"shots": [4], "fit_on": "probe"}},
        }
    )


# Diverge on so few images at the rate of the others, wrapped or not.
RATES = {"vicreg": 0.005, "vibcreg": 1e-5}


def calm_config(folder: Path, method: str, **changes: object) -> DictConfig:
    """The same at a rate at which every base converges."""
    rate = {"optimizer__lr": RATES[base_of(method)]} if base_of(method) in RATES else {}
    return tiny_config(folder, method, **{**rate, **changes})
