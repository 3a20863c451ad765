# SPDX-License-Identifier: MIT
"""What is peculiar to a method on the real solo-learn: its ViTs, small crops, stems, its own main.

Every wrapper over every base of it is in tests/methods/matrix.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.blocks import run_keys
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.pretrain import pretrain
from tests.kit.cases import WRAPPERS
from tests.kit.host_steps import BATCH, IMAGES, VIT, Views, Watch, make, two_steps
from tests.kit.hosts import make_cfg, needs_solo
from tests.kit.runs import step
from tests.kit.tiny import tiny_config
from tests.kit.views import views

pytestmark = needs_solo
COUNTS = [6, 4, 2]
TARGETS = [0] * 6 + [1] * 4 + [2] * 2


def wrapped(wrapper: str, base: str, block: dict[str, Any], **changes: Any) -> Any:
    cfg = make_cfg(base, scheduler__warmup_epochs=0, data__num_samples=IMAGES, **changes)
    cfg.optimizer.lr = 0.01  # VICReg diverges on noise at 0.1
    cfg.method, cfg.method_kwargs[wrapper] = f"{wrapper}_{base}", block
    return cfg


def gh_cfg(base: str, **changes: Any) -> Any:
    return wrapped("gh", base, WRAPPERS["gh"].steps.kwargs, **changes)


def gh_took_part(cfg: Any, small: int = 0) -> Any:
    """The model after two steps with GH's weight at 1, whose memory holds the images it was fed."""
    model, watch = make(cfg), Watch()
    metrics = two_steps(model, Views(small=small), callbacks=[watch])
    assert metrics["train_gh_weight_step"] == metrics["train_gh_weight_epoch"] == 1.0
    assert len(set(watch.indexes)) == 2 * BATCH
    filled = torch.nonzero(model.gh_memory_filled).flatten().tolist()
    assert filled == sorted(watch.indexes)
    assert model.gh_memory.shape == (IMAGES, 3)
    assert model.gh_memory[filled].abs().sum(dim=1).min() > 0
    return model


def test_gradient_of_ghs_term_reaches_the_backbone() -> None:
    """With a weight of 0 and of 1 the backbones of the same start differ after two steps."""
    cfg = gh_cfg("simclr")
    weights = [gh_took_part(cfg).backbone.conv1.weight]
    cfg.method_kwargs.gh.weight = 1e-9
    model = make(cfg)
    two_steps(model, Views())
    assert (weights[0] - model.backbone.conv1.weight).abs().max() > 1e-5


@pytest.mark.parametrize("base", ["mocov3", "simclr"])
def test_gh_with_a_vit(base: str) -> None:
    """solo-learn builds MoCo's own ViT where it sees ``mocov3``: the base must see its own name."""
    model = gh_took_part(gh_cfg(base, **VIT))
    assert ("MoCo" in type(model.backbone).__name__) == (base == "mocov3")


def test_gh_with_small_crops() -> None:
    """GH takes the two large views; the small ones are the base's business."""
    assert gh_took_part(gh_cfg("swav", data__num_small_crops=2), small=2).multicrop


def test_without_num_samples_the_loader_tells_it() -> None:
    """As under solo-learn's own main, which knows no ``data.num_samples``."""
    cfg = gh_cfg("deepclusterv2")
    cfg.data.pop("num_samples")
    model = gh_took_part(cfg)
    assert model.dataset_size == model.num_samples == IMAGES


@pytest.mark.parametrize("base", ["simclr", "mocov3"])
def test_sdclr_with_a_vit(base: str) -> None:
    """Linear layers are pruned, LayerNorms are shared."""
    model = make(wrapped("sdclr", base, {}, **VIT))
    metrics = two_steps(model, Views())
    assert metrics["train_sdclr_sparsity_epoch"] == pytest.approx(0.9, abs=1e-3)
    masks = dict(model.sdclr_masks.named_buffers())
    assert any("attn.qkv" in name for name in masks)
    assert not any(name.startswith("backbone") for name, _ in model.sdclr_norms.named_parameters())


def test_small_crops_go_through_sdclrs_full_network() -> None:
    model = make(wrapped("sdclr", "swav", {}, data__num_small_crops=1))
    two_steps(model, Views(small=1))
    assert int(model.backbone.bn1.num_batches_tracked) == 4  # view 1 and the small crop, twice
    assert int(model.sdclr_norms.backbone.bn1.num_batches_tracked) == 2


def test_a_stem_swapped_after_construction() -> None:
    """solo-learn chooses the stem by the data set's name; our stage overrules it."""
    from ltplugins.host.stem import apply_stem

    cfg = wrapped("sdclr", "simclr", {}, data__dataset="custom")
    model, other = make(cfg), make(cfg)
    for each in (model, other):
        apply_stem(each, True)
    model.setup("fit")
    assert model.sdclr_masks.backbone.conv1.weight.shape[-1] == 3
    other.load_state_dict(model.state_dict())


def test_three_views_and_small_crops() -> None:
    cfg = wrapped("mv", "swav", {"upper": 0.9}, data__num_large_crops=3, data__num_small_crops=1)
    model = make(cfg)
    assert "train_swav_loss_epoch" in two_steps(model, Views(3, 1))
    assert model.multicrop


def test_focal() -> None:
    model = make(make_cfg("focal", scheduler__warmup_epochs=0))
    metrics = two_steps(model, Views())
    assert type(model).__mro__[3].__module__ == "solo.methods.base"
    assert 0 < metrics["train_focal_weight_epoch"] <= 1
    assert model.state_dict().keys() == make(make_cfg("simclr")).state_dict().keys()
    assert all(p.grad is not None for p in model.projector.parameters())


def test_focal_at_gamma_zero_is_solos_simclr() -> None:
    cfg = make_cfg("focal")
    cfg.method_kwargs.gamma = 0.0
    focal, simclr = make(cfg), make(make_cfg("simclr"))
    simclr.load_state_dict(focal.state_dict())
    batch = torch.utils.data.default_collate([Views()[i] for i in range(6)])
    torch.testing.assert_close(step(focal, batch), step(simclr, batch))


def test_mttv() -> None:
    momentum = {"base_tau": 0.9, "final_tau": 0.9, "classifier": True}
    cfg = make_cfg("mttv", momentum=momentum, data__sampler="paired")
    model = make(cfg)  # of three classes, whose top-5 accuracy its momentum classifier asks for
    metrics = two_steps(model, Views())
    assert type(model).__mro__[3].__module__ == "solo.methods.base"
    for name in ("nce_loss", "class_loss", "momentum_class_loss"):
        assert f"train_{name}_epoch" in metrics
    online, twin = model.projector[0].weight, model.momentum_projector[0].weight
    assert not torch.equal(online, twin)
    assert not twin.requires_grad
    assert model.momentum_updater.cur_tau == 0.9


@pytest.mark.parametrize("count", [1, 2])
def test_iccl(count: int) -> None:
    cfg = make_cfg("iccl", data__sampler={"name": "two_branch"}, data__num_large_crops=count)
    model = make(cfg)
    metrics = two_steps(model, Views(count))
    assert type(model).__mro__[3].__module__ == "solo.methods.base"
    for name in ("class_loss", "mixup_loss", "centroid_loss", "clean_centroid_loss", "acc1"):
        assert f"train_{name}_epoch" in metrics
    assert model.iccl_updates.sum() > 0
    x = torch.randn(2, 3, 16, 16)
    out = model.eval()(x)
    assert torch.equal(out["logits"], model.class_logits(out["feats"]))
    assert out["logits"].requires_grad


def gml_of(cfg: Any) -> Any:
    """The model as a host's own main makes it, whose config knows no number of images."""
    cfg = resolve(cfg).host
    cfg.data.num_classes = len(COUNTS)
    return make(cfg)


def test_gml_in_momentum_mode(tmp_path: Path) -> None:
    model = gml_of(tiny_config(tmp_path, "gml", momentum__classifier=True))
    known = Views(3, targets=TARGETS, known=True)
    metrics = two_steps(model, known, val=Views(3, targets=TARGETS, train=False))
    assert type(model).__mro__[4].__module__ == "solo.methods.base"
    for name in ("nce_loss", "gml_sup_loss", "class_loss", "momentum_class_loss"):
        assert f"train_{name}_epoch" in metrics
    assert model.class_counts.tolist() == COUNTS
    assert int(model.gml_queue.filled.sum()) > 0
    assert not torch.equal(model.projector[0].weight, model.momentum_projector[0].weight)


def test_class_counts_that_nobody_knows(tmp_path: Path) -> None:
    unknown = Views(3, targets=TARGETS)
    with pytest.raises(UserError, match=r"Set method_kwargs.class_counts to a list"):
        two_steps(gml_of(tiny_config(tmp_path, "gml")), unknown)
    model = gml_of(tiny_config(tmp_path, "gml", method_kwargs__class_counts=COUNTS))
    two_steps(model, unknown)
    assert model.class_counts.tolist() == COUNTS


def test_gml_in_teacher_mode_and_the_classifier_alone(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, "gml", max_epochs=1, output_dir=str(tmp_path / "teacher"))
    cfg.augmentations = views(1)
    cfg.method_kwargs.contrast_weight = 0.0
    pretrain(cfg)
    student = tiny_config(tmp_path, "gml", max_epochs=1, output_dir=str(tmp_path / "student"))
    student.method_kwargs.update(teacher=str(tmp_path / "teacher"), distill_weight=1.0)
    run = pretrain(student)  # with validation, which asks momentum bases for their twin
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state["class_counts"].tolist() == [24, 12, 6]
    assert "key_projector.0.weight" in state
    assert not any(k.startswith("momentum_") for k in state)


@pytest.mark.parametrize("name", ["test_resnet", "resnet10t", "mobilenetv3_small_050"])
def test_a_backbone_that_only_timm_has(name: str) -> None:
    """The packaged config's is one; MobileNet's features are wider than timm's num_features."""
    model = make(make_cfg("simclr", backbone={"name": name}))
    x = torch.randn(2, 3, 32, 32)
    assert model.eval()(x)["feats"].shape == (2, model.features_dim)
    two_steps(make(make_cfg("byol", backbone={"name": name})), Views())


def test_a_backbone_that_nobody_has_is_one_line() -> None:
    with pytest.raises(UserError, match=r"unknown backbone 'resnet19'. Did you mean 'resnet18'"):
        make(make_cfg("simclr", backbone={"name": "resnet19"}))


def test_a_base_of_solo_learn_alone_is_a_choice_of_the_command_line(tmp_path) -> None:
    words = ["method=gh_nnclr", "method_kwargs.queue_size=64", "optimizer.batch_size=16"]
    words += ["max_steps=1", "max_epochs=1", "accelerator=cpu", "devices=1", "limit_val_batches=0"]
    words += ["data.num_workers=0", "scheduler.warmup_epochs=0", f"output_dir={tmp_path / 'run'}"]
    facts = RunFolder(pretrain(compose_packaged("pretrain", words, run_keys))).read()
    assert (facts.method, facts.progress.steps) == ("gh_nnclr", 1)
