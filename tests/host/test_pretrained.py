# SPDX-License-Identifier: MIT
"""``backbone.pretrained``: every form of file, and what does not fit or cannot be fetched."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ltplugins.core.errors import UserError
from ltplugins.host.build import build_model
from ltplugins.host.pretrained import load_pretrained
from tests.kit.hosts import on_the_stand_in, tiny_cfg

pytestmark = on_the_stand_in


def model_of(where: Any, method: str = "simclr") -> tuple[Any, Any]:
    cfg = tiny_cfg(method, backbone__pretrained=where)
    return build_model(cfg, 1, False), cfg


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    state = model_of(False)[0].backbone.state_dict()
    return {k: torch.rand(v.shape) if v.is_floating_point() else v for k, v in state.items()}


def write(kind: str, weights: dict[str, torch.Tensor], folder: Path) -> Path:
    with_head = {**weights, "fc.weight": torch.zeros(3, 3)}
    if kind == "safetensors":
        save_file(with_head, folder / "x.safetensors")
        return folder / "x.safetensors"
    if kind == "pth":
        torch.save(with_head, folder / "x.pth")
        return folder / "x.pth"
    path = folder / ("checkpoints/last.ckpt" if kind == "run" else "simclr-ep=9.ckpt")
    path.parent.mkdir(exist_ok=True)
    state = {f"backbone.{k}": v for k, v in weights.items()} | {"projector.0.bias": torch.ones(1)}
    torch.save({"epoch": 9, "state_dict": state}, path)
    return folder if kind == "run" else path


@pytest.mark.parametrize("kind", ["safetensors", "pth", "ckpt", "run"])
def test_weights_of_a_file(kind: str, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    model, cfg = model_of(str(write(kind, weights, tmp_path)), "byol")
    load_pretrained(model, cfg)
    for network in (model.backbone, model.momentum_backbone):
        assert all(torch.equal(v, weights[k]) for k, v in network.state_dict().items())


def test_weights_that_do_not_fit(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    some = dict(list(weights.items())[3:])
    torch.save(some, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"are not those of test_resnet: 3 keys missing \(conv1"):
        load_pretrained(*model_of(str(tmp_path / "x.pth")))
    torch.save({**weights, "conv1.0.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"1 of another shape \(conv1.0.weight\)\. Its stem"):
        load_pretrained(*model_of(str(tmp_path / "x.pth")))
    with pytest.raises(UserError, match=r"no such file: nowhere.pth"):
        load_pretrained(*model_of("nowhere.pth"))
    (tmp_path / "x.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"cannot be opened as weights"):
        load_pretrained(*model_of(str(tmp_path / "x.pth")))


def test_without_a_network_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("pretrained"):
            raise ConnectionError("no route")
        return build(*args, **kwargs)

    build = timm.create_model
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"no weights of test_resnet could be had.*PATH"):
        load_pretrained(*model_of(True))
