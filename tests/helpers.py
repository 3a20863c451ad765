# SPDX-License-Identifier: MIT
"""A tiny run: generated images, a tiny network, seconds on a CPU."""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

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
GH = {"num_directions": 5, "warmup": 1, "ramp": 1, "num_iters": 20, "prior_interval": 1}
COLT = {
    "topk": 4,
    "warmup": 1,
    "interval": 2,
    "budget": 8,
    "num_clusters": 3,
}
VIEW = {
    "rrc": {"enabled": True, "crop_min_scale": 0.3, "crop_max_scale": 1.0},
    "color_jitter": {
        "prob": 0.8,
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.2,
        "hue": 0.1,
    },
    "grayscale": {"prob": 0.2},
    "gaussian_blur": {"prob": 0.0},
    "solarization": {"prob": 0.0},
    "equalization": {"prob": 0.0},
    "horizontal_flip": {"prob": 0.5},
    "crop_size": 16,
    "num_crops": 2,
}


def write_arrays(path: Path, counts: tuple[int, ...] = (24, 12, 6), seed: int = 0) -> Path:
    """Write an .npz of random 16-pixel images whose brightness tells the class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    base = 40 + 60 * labels[:, None, None, None]
    images = (base + rng.integers(0, 60, (len(labels), 16, 16, 3))).astype(np.uint8)
    np.savez(path, images=images, labels=labels)
    return path


def tiny_config(folder: Path, method: str = "gh_simclr", **changes: object) -> DictConfig:
    """Config of a run on generated arrays; ``a__b=c`` sets ``a.b``."""
    names = [name for name in ("gh", "colt") if f"{name}_" in method]
    base = method.removeprefix("gh_").removeprefix("colt_")
    blocks = {name: {"gh": GH, "colt": COLT}[name] for name in names}
    train, test = folder / "train.npz", folder / "test.npz"
    if not train.exists():
        write_arrays(train)
        write_arrays(test, (8, 8, 8), seed=1)
    cfg = OmegaConf.create(
        {
            "name": "tiny",
            "method": method,
            "method_kwargs": {**KWARGS[base], **blocks},
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
    if "colt" in names:
        pool = folder / "ood.npz"
        if not pool.exists():
            write_arrays(pool, (6, 6, 6, 6), seed=2)
        ood = {"dataset": "custom", "format": "arrays", "train_path": str(pool)}
        cfg.data.update(sampler="id_plus_ood", ood=ood)
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    return cfg
