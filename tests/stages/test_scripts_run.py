# SPDX-License-Identifier: MIT
"""Every pretraining YAML under scripts/ trains, on tiny files in its data set's own format."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from PIL import Image
from torchvision import datasets

from ltplugins.runs.folder import RunFolder
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.pretrain import pretrain
from tests.kit.paths import ROOT

FOLDER = ROOT / "scripts/pretrain"
SCRIPTS = sorted(FOLDER.rglob("*.yaml"))
CLASSES, PER_CLASS = 4, 6
# Lines as they are published: (folder of the YAMLs, a line's path, with class and number).
LISTS = {
    "imagenet_lt": "train/n{c:08d}/n{c:08d}_{i}.JPEG",
    "places_lt": "data_large_standard/a/scene_{c}/{i:08d}.jpg",
    "inat2018": "train_val2018/Plantae/{c}/{i:032x}.jpg",
}


def picture(rng, label, size):
    return (40 * label + rng.integers(0, 60, (size, size, 3))).astype(np.uint8)


def write_cifar(root):
    """CIFAR-10 and CIFAR-100 as pickled batches, three images a class."""
    rng = np.random.default_rng(0)
    for name, key, count, files in (
        ("cifar-10-batches-py", "labels", 10, [f"data_batch_{k}" for k in range(1, 6)]),
        ("cifar-100-python", "fine_labels", 100, ["train"]),
    ):
        base = root / name
        base.mkdir(parents=True)
        for file in [*files, "test_batch" if key == "labels" else "test"]:
            labels = list(range(count)) * (2 if key == "labels" else 3)
            data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
            (base / file).write_bytes(pickle.dumps({"data": data, key: labels}))
        names = {
            "label_names" if key == "labels" else "fine_label_names": [*map(str, range(count))]
        }
        (base / ("batches.meta" if key == "labels" else "meta")).write_bytes(pickle.dumps(names))


def write_list(root, pattern):
    """Images under ``images`` and the lists of a training, a test and a probe part."""
    rng = np.random.default_rng(0)
    lines = []
    for label in range(CLASSES):
        for i in range(PER_CLASS):
            path = root / "images" / pattern.format(c=label, i=i)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(rng, label, 40)).save(path, format="JPEG")
            lines.append(f"{pattern.format(c=label, i=i)} {label}")
    for part in ("train", "val", "probe"):
        (root / f"{part}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A folder with CIFAR's files, one folder for each kind of list, and a pool of images."""
    root = tmp_path_factory.mktemp("formats")
    write_cifar(root)
    for name, pattern in LISTS.items():
        write_list(root / name, pattern)
    (root / "pool").mkdir()
    rng = np.random.default_rng(1)
    for i in range(12):
        Image.fromarray(picture(rng, i % 4, 40)).save(root / f"pool/{i}.png")
    np.save(root / "pool.npy", rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8))
    return root


def shrink(cfg, folder, tiny_data, out):
    """The same file with other paths, a tiny network and a few images."""
    with open_dict(cfg):
        cfg.backbone = {"name": "test_resnet", "small_stem": False}
        cfg.optimizer.batch_size = 8
        cfg.update(max_epochs=2, limit_train_batches=2, accelerator="cpu", devices=1)
        cfg.update(output_dir=str(out), enable_progress_bar=False)
        for block in cfg.augmentations:
            block.crop_size = 16
        cfg.data.num_workers = 0
        if folder == "cifar":
            cfg.data.update(train_path=str(tiny_data), val_path=str(tiny_data))
            cfg.data.imbalance.factor = 3
        elif folder in LISTS:
            base = tiny_data / folder
            for key, part in (
                ("train_path", "train"),
                ("val_path", "val"),
                ("probe_path", "probe"),
            ):
                if cfg.data.get(key):
                    cfg.data[key] = str(base / f"{part}.txt")
            cfg.data.root = str(base / "images")
        elif folder == "fashion":
            cfg.data.fraction = 0.1
            if "ood" in cfg.data:
                cfg.data.ood.fraction = 0.1
        elif folder == "land":
            cfg.data.update(stride=32, least=25)  # a quarter of the tiles, of the same classes
        if "ood" in cfg.data and cfg.data.ood.dataset == "custom":
            pool = f"pool{Path(cfg.data.ood.train_path).suffix}"
            cfg.data.ood.train_path = str(tiny_data / pool)
        cfg.eval.knn.k = 3
        if cfg.eval.linear:
            cfg.eval.linear.shots = ["full"]
        if cfg.method_kwargs.get("teacher"):
            cfg.method_kwargs.teacher = str(train_teacher(cfg, f"{out}-teacher"))
    return cfg


def train_teacher(cfg, out):
    """The same file's run without a teacher of its own."""
    cfg = cfg.copy()
    cfg.method_kwargs.update(teacher=None, distill_weight=0.0)
    cfg.output_dir = out
    return pretrain(cfg)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: str(p.relative_to(FOLDER)))
def test_it_trains(path, tiny_data, tmp_path, monkeypatch):
    # torchvision compares checksums, which generated files cannot have.
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda p, md5=None: Path(p).is_file())
    with initialize_config_dir(str(path.parent), version_base="1.2"):
        cfg = compose(path.stem)
    out = tmp_path / "run"
    pretrain(shrink(cfg, path.parent.name, tiny_data, out))
    run = RunFolder.existing(out)
    assert run.read().finished
    assert run.last_checkpoint is not None
    assert OmegaConf.load(out / "config.yaml").method == cfg.method


@pytest.mark.parametrize("folder", LISTS)
def test_a_run_on_a_list_is_evaluated_by_groups(folder, tiny_data, tmp_path):
    path = sorted((FOLDER / folder).glob("*simclr.yaml"))[-1]
    with initialize_config_dir(str(path.parent), version_base="1.2"):
        cfg = compose(path.stem)
    cfg = shrink(cfg, folder, tiny_data, tmp_path / "run")
    pretrain(cfg)
    options = OmegaConf.create(
        {"run": str(tmp_path / "run"), "eval": cfg.eval, "device": "cpu", "batch_size": 8}
    )
    results = evaluate(options)
    assert set(results.groups) == {"threshold", "tercile"}
    assert len(results.protocols) == 2
