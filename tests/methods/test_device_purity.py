# SPDX-License-Identifier: MIT
"""Every method's step on a GPU that is not there: nothing is left on the CPU, nothing waits.

Of the forward pass, the loss and the twins' update; a backward pass is none of our code. The
backbone is linear, the heads are the methods' own. What a real GPU has to say is in ``tests/gpu``.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ltplugins.host.twins import update_twins
from tests.kit.cases import Steps, case_of, names
from tests.kit.fake_cuda import OTHER_DEVICE, WAITS, FakeCuda, WaitsForDevice, fake_cuda, to_cuda
from tests.kit.hosts import SIZE, on_the_stand_in
from tests.kit.two_steps import IMAGES, Trainer, config

pytestmark = on_the_stand_in
BATCH = 8
# Options that a method's line does not take, and that lead elsewhere.
VARIANTS: dict[str, dict[str, Any]] = {
    "gh_simclr": {"gh__prior_refresh": "step", "gh__memory_sharded": True},
    "gh_colt_simclr": {"gh__memory_dtype": "bfloat16", "colt__denominator": "cross_domain"},
    "bcl_simclr": {"bcl__joint_views": True},
    "mttv": {"filter": "negatives-style", "reduction": "mean_log", "fusion": "concat-style"},
    "gml": {"base_k": 0},
}


@pytest.fixture
def mode() -> Iterator[FakeCuda]:
    with fake_cuda() as mode:
        yield mode


def logged(self: Any, metrics: dict[str, Any], **kwargs: Any) -> None:
    """Lightning copies a number to the device, which waits."""
    for key, value in metrics.items():
        if not (isinstance(value, Tensor) and value.device.type == "cuda"):
            raise WaitsForDevice(f"{key} is logged as {value!r}: give a tensor of the device.")


def on_fake_cuda(name: str, mode: FakeCuda, **changes: Any) -> Any:
    """The method as it is after its set-up, on the device; the online kNN takes part."""
    from ltplugins.host import METHODS as HOST_METHODS
    from ltplugins.host import prepare

    prepare()
    cfg = config(name, case_of(name).steps)
    cfg.knn_eval = {"enabled": True, "k": 2}
    for key, value in changes.items():
        block, _, option = key.rpartition("__")
        (cfg.method_kwargs[block] if block else cfg.method_kwargs)[option] = value
    model: Any = HOST_METHODS[name](cfg)
    model.log_dict = logged.__get__(model)
    model.log = lambda key, value, **kwargs: model.log_dict({key: value}, **kwargs)
    model._trainer = Trainer()
    for part in ("backbone", "momentum_backbone"):
        if hasattr(model, part) and "sdclr" not in name:  # it has copied the norms of the first
            linear = nn.Linear(3 * SIZE * SIZE, model.features_dim)
            setattr(model, part, nn.Sequential(nn.Flatten(), linear))
            getattr(model, part).requires_grad_(part == "backbone")
    start_epoch(name, model)
    to_cuda(model)
    return model


def start_epoch(name: str, model: Any) -> None:
    """What is done once an epoch may wait; it is done before the step."""
    if "sdclr" in name:
        from ltplugins.methods.sdclr import SDCLRMixin

        model._allocate_masks()
        SDCLRMixin.on_train_epoch_start(model)


def batch_on_cuda(steps: Steps) -> list[Any]:
    views = [torch.randn(BATCH, 3, SIZE, SIZE, device="cuda") for _ in range(steps.views)]
    indexes = torch.randint(IMAGES, (BATCH,), device="cuda")
    return [indexes, views, torch.randint(3, (BATCH,), device="cuda")]


def take_a_step(name: str, model: Any) -> None:
    loss = model.training_step(batch_on_cuda(case_of(name).steps), 0)
    assert loss.device.type == "cuda"
    assert loss.shape == ()
    assert loss.requires_grad
    if hasattr(model, "momentum_updater"):
        model.last_step = -1
        assert update_twins(model)


@pytest.mark.parametrize("name", names())
def test_a_step_never_waits_and_leaves_nothing_on_the_cpu(name: str, mode: FakeCuda) -> None:
    take_a_step(name, on_fake_cuda(name, mode))


@pytest.mark.parametrize("name", VARIANTS)
def test_nor_with_other_options(name: str, mode: FakeCuda) -> None:
    take_a_step(name, on_fake_cuda(name, mode, **VARIANTS[name]))


def planted(model: Any, what: Any) -> None:
    """Have every view's forward end with what a method should not do."""
    forward = model.base_training_step

    def step(x: Tensor, targets: Tensor) -> Any:
        out = forward(x, targets)
        what(out["z"], targets)
        return out

    model.base_training_step = step


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (WAITS, lambda z, targets: z.mean().item()),
        (WAITS, lambda z, targets: 1 if z.isfinite().all() else 0),
        (WAITS, lambda z, targets: z[targets > 0]),
        (WAITS, lambda z, targets: targets.unique()),
        (WaitsForDevice, lambda z, targets: z.cpu()),
        (WaitsForDevice, lambda z, targets: torch.tensor([1.0, 2.0], device=z.device)),
        (WaitsForDevice, lambda z, targets: torch.randperm(len(z)).to(z.device, non_blocking=True)),
        (WaitsForDevice, lambda z, targets: z[torch.randperm(len(z))]),
        (OTHER_DEVICE, lambda z, targets: z + torch.ones(z.shape[1])),
    ],
)
def test_what_is_planted_is_found(error: Any, what: Any, mode: FakeCuda) -> None:
    model = on_fake_cuda("simclr", mode)
    planted(model, what)
    with pytest.raises(error):
        take_a_step("simclr", model)


def test_a_number_in_the_log_is_found(mode: FakeCuda) -> None:
    model = on_fake_cuda("simclr", mode)
    with pytest.raises(WaitsForDevice, match="train_x is logged"):
        model.log("train_x", 0.5)


def test_a_forgotten_buffer_is_found(mode: FakeCuda) -> None:
    model = on_fake_cuda("gh_simclr", mode)
    model.gh_etf = torch.zeros(model.gh_etf.shape)
    with pytest.raises((OTHER_DEVICE, WaitsForDevice)):
        take_a_step("gh_simclr", model)
