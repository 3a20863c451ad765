# SPDX-License-Identifier: MIT
"""What a training will need is counted right and told with a way out, before it starts."""

import logging
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from ltplugins.stages.pretrain import pretrain
from ltplugins.training import memory
from ltplugins.training.memory import kept_bytes, needed_bytes, tell_memory
from tests.kit.tiny import tiny_config


def test_a_convolution_keeps_its_input_once() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())
    state = {k: v.clone() for k, v in net.state_dict().items()}
    generator = torch.get_rng_state()
    # The image (3), what the norm takes in (5) and what ReLU gives out (5), each 8 x 8 in 4 bytes.
    assert abs(kept_bytes(net, 8) - (3 + 5 + 5) * 64 * 4) <= 64
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator) and net.training


def test_it_grows_with_batch_and_views(tmp_path: Path) -> None:
    model = nn.Module()
    model.backbone = nn.Conv2d(3, 4, 3, bias=False)
    one = needed_bytes(resolve(tiny_config(tmp_path, "simclr", optimizer__batch_size=8)), model)
    two = needed_bytes(resolve(tiny_config(tmp_path, "simclr", optimizer__batch_size=16)), model)
    weights = 4 * 4 * 27 * 4
    assert two - weights == 2 * (one - weights) > 0


def test_a_size_that_a_backbone_does_not_take_is_refused(tmp_path: Path) -> None:
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(UserError, match=r"backbone.name: .* does not take images of 16 pixels"):
        needed_bytes(resolve(tiny_config(tmp_path, "simclr")), model)


def test_too_much_is_told_with_the_way_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resolve(tiny_config(tmp_path, "simclr", optimizer__batch_size=256))
    monkeypatch.setattr(memory, "available_bytes", lambda device: int(8e9))
    with caplog.at_level(logging.INFO):
        tell_memory(run, int(2e9), torch.device("cpu"))
        assert "device: cpu; about 2.0 GB of memory of 8.0 GB" in caplog.text
        assert "hardly fit" not in caplog.text
        tell_memory(run, int(19e9), torch.device("cpu"))
    assert "optimizer.batch_size=64 accumulate_grad_batches=4" in caplog.text


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "the GPU"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 3347316736 b"), "this machine"),
    ],
)
def test_an_allocation_that_fails_is_one_line(
    error: RuntimeError, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    with pytest.raises(UserError, match=rf"^out of memory: {where} .* 8 .*batch_size=4") as told:
        pretrain(tiny_config(tmp_path, "simclr"))
    assert "accumulate_grad_batches=2" in str(told.value) and "\n" not in str(told.value)


def test_other_errors_are_not_taken_for_it(tmp_path: Path) -> None:
    run = resolve(tiny_config(tmp_path, "simclr"))
    memory.refuse_if_out_of_memory(RuntimeError("shape mismatch"), run)
