# SPDX-License-Identifier: MIT
"""What follows a training, on a GPU: the same features and numbers, and downstream training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.eval.features import extract_features
from ltplugins.metrics.knn import knn_predict
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.finetune import finetune
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.segment import segment
from ltplugins.zoo.load import load_backbone
from tests.kit.gpu import DEVICE, on_a_gpu
from tests.kit.masks import write_masks
from tests.kit.tiny import tiny_config

DECODER = {"name": "unet", "kwargs": {"decoder_channels": [16, 16, 8, 8, 8]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of SimCLR on the device."""
    folder = tmp_path_factory.mktemp("first")
    cfg = tiny_config(folder, "simclr", max_epochs=2, output_dir=str(folder / "run"))
    cfg.accelerator = DEVICE
    return pretrain(cfg)


def config(stage: str, run: Path, **changes: Any) -> Any:
    cfg = compose_packaged(stage, [f"run={run}"])
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True, merge=False)
    return cfg


@on_a_gpu
def test_features_are_those_of_the_cpu(run: Path) -> None:
    """Without TF32, whose features would be those of no other device."""
    backbone = load_backbone(str(run))
    images = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batches = [(part, torch.zeros(len(part), dtype=torch.long)) for part in images.split(16)]
    one, _ = extract_features(backbone, batches, "cpu")
    two, _ = extract_features(backbone, batches, DEVICE)
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


@on_a_gpu
def test_knn_on_the_device_names_the_same_classes() -> None:
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (5000,), generator=g)
    bank = torch.randn(5000, 64, generator=g) + 2 * torch.eye(10, 64)[labels]
    test = torch.randn(700, 64, generator=g)
    kwargs = {"num_classes": 10, "k": 200, "temperature": 0.07}
    one = knn_predict(bank, labels, test, **kwargs)
    there = (part.to(DEVICE) for part in (bank, labels, test))
    assert (knn_predict(*there, **kwargs).cpu() == one).float().mean() > 0.998


@on_a_gpu
def test_an_evaluation_gives_the_numbers_of_the_cpu(run: Path) -> None:
    keys = {"eval__knn__k": 3, "eval__linear__shots": [4]}
    one, two = (evaluate(config("evaluate", run, device=d, **keys)) for d in ("cpu", DEVICE))
    assert one.protocols.keys() == two.protocols.keys()
    for name, expected in one.protocols.items():
        # One image of 24 may lie on the border.
        assert abs(two.protocols[name].overall.mean - expected.overall.mean) < 0.05


@on_a_gpu
@pytest.mark.parametrize("mode", ["linear", "lp_ft"])
def test_fine_tuning(mode: str, run: Path, tmp_path: Path) -> None:
    short = {"epochs": 2, "probe_epochs": 2, "batch_size": 8, "validation": 0.2, "mode": mode}
    cfg = config("finetune", run, output_dir=str(tmp_path / "out"), accelerator=DEVICE, **short)
    assert (finetune(cfg) / "results.json").exists()


@on_a_gpu
@pytest.mark.parametrize("loss", ["ce", "adjusted"])
def test_segmentation(loss: str, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    keys = {"data__format": "folder", "data__path": str(write_masks(tmp_path / "masks"))}
    small = {"decoder": DECODER, "epochs": 2, "batch_size": 4, "val_every": 0, "pictures": 2}
    views = {"views__crop": 64, "views__scale": [0.8, 1.2], "loss": {loss: 1.0}}
    out = {"output_dir": str(tmp_path / "out"), "accelerator": DEVICE}
    folder = segment(config("segment", run, **keys, **small, **views, **out))
    assert (folder / "results.json").exists()
