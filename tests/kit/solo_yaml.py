# SPDX-License-Identifier: MIT
"""A config of our own with the keys and the structure of solo-learn's, and where its files lie."""

import importlib.util
from pathlib import Path

TOP = """
defaults:
  - _self_
  - augmentations: two_blocks.yaml
  - wandb: mine.yaml
  - override hydra/hydra_logging: disabled
  - override hydra/job_logging: disabled

hydra:
  output_subdir: null
  run:
    dir: .

name: "own-file"
method: "byol"
backbone:
  name: "resnet18"
  kwargs: {}
method_kwargs:
  proj_hidden_dim: 16
  proj_output_dim: 128
  pred_hidden_dim: 16
momentum:
  base_tau: 0.98
  final_tau: 1.0
data:
  dataset: cifar10
  train_path: "somewhere"
  val_path: "somewhere/val"
  format: "image_folder"
  num_workers: 4
  no_labels: False
dali:
  encode_indexes_into_labels: True
optimizer:
  name: "lars"
  batch_size: 256
  lr: 0.3
  classifier_lr: 0.2
  weight_decay: 1e-5
  kwargs:
    clip_lr: True
    eta: 0.01
    exclude_bias_n_norm: True
scheduler:
  name: "warmup_cosine"
  warmup_start_lr: 0
  warmup_epochs: 1
  min_lr: 0.0006
checkpoint:
  enabled: True
  dir: "models"
  frequency: 1
auto_resume:
  enabled: True
augmentations_cfg: "left/over.yaml"
wandb_cfg: "left/over.yaml"

max_epochs: 900
devices: [0]
sync_batchnorm: True
accelerator: "gpu"
strategy: "ddp"
precision: 16-mixed
accumulate_grad_batches: 2
"""
BLOCK = """
- rrc:
    enabled: True
    crop_min_scale: 0.2
    crop_max_scale: 1.0
  color_jitter:
    enabled: True
    brightness: 0.4
    contrast: 0.4
    saturation: 0.2
    hue: 0.1
    prob: 0.8
  grayscale:
    enabled: True
    prob: 0.2
  gaussian_blur:
    enabled: {blur}
    prob: {blur_prob}
  solarization:
    prob: 0.1
  equalization:
    enabled: False
    prob: 0.0
  horizontal_flip:
    enabled: True
    prob: 0.5
  crop_size: 32
  num_crops: 1
"""
WANDB = """
enabled: True
entity: None
project: "own-project"
"""


def write_solo_yaml(folder: Path) -> Path:
    """Write ``own.yaml`` with its two config groups; return the folder."""
    for name, text in {
        "own.yaml": TOP,
        "augmentations/two_blocks.yaml": BLOCK.format(blur=True, blur_prob=0.5)
        + BLOCK.format(blur=False, blur_prob=0.0),
        "wandb/mine.yaml": WANDB,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def solo_root() -> Path | None:
    """The source tree that ``solo`` is imported from, if it has the scripts beside it."""
    spec = importlib.util.find_spec("solo")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parents[1]
    return root if (root / "main_pretrain.py").exists() else None
