# SPDX-License-Identifier: MIT
"""Both views as one batch to every BatchNorm, by the option of COLT, BCL and TS."""

import copy

import pytest
import torch

import ltplugins
from ltplugins.core.errors import UserError
from tests.kit.hosts import make_batch, tiny_cfg
from tests.kit.runs import build, fit
from tests.kit.tiny import tiny_config
from tests.kit.two_steps import Trainer

JOINT = {"joint_views": True}


def model_of(wrapper, base="simclr", block=None, **changes):
    """A wrapper over a host's method with BatchNorms, in training mode outside a Trainer."""
    from ltplugins.host import METHODS

    ltplugins.register()
    from ltplugins.host import HOST

    network = {"backbone__name": "resnet18"} if HOST.name == "solo" else {}
    cfg = tiny_cfg(base, data__num_samples=4, **network, **changes)
    cfg.method, cfg.method_kwargs[wrapper] = f"{wrapper}_{base}", block or {}
    torch.manual_seed(0)
    model = METHODS[cfg.method](cfg)
    model._trainer = Trainer()
    model.log_dict = model.log = lambda *args, **kwargs: None
    return model


def outputs(model, batch):
    """What the base's step was told of each view, and the loss."""
    seen = []
    forward = type(model).base_training_step

    def recording(self, x, targets):
        seen.append(forward(self, x, targets))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "base_training_step", recording)
        loss = model.training_step(batch, 0)
    return seen, loss


@pytest.mark.parametrize("base", ["simclr", "supcon", "byol"])
def test_the_views_are_one_batch(base):
    batch = make_batch()
    model = model_of("bcl", base, JOINT)
    twin = copy.deepcopy(model)
    seen, _ = outputs(model, batch)
    both = twin(torch.cat(batch[1]))
    for out, z, feats in zip(seen, both["z"].chunk(2), both["feats"].chunk(2), strict=True):
        torch.testing.assert_close(out["z"], z)
        torch.testing.assert_close(out["feats"], feats)
    alone, _ = outputs(model_of("bcl", base), batch)
    assert not torch.allclose(alone[0]["feats"], seen[0]["feats"], atol=1e-3)
    assert int(model.backbone.bn1.num_batches_tracked) == 1  # one pass


def test_without_batch_norm_it_changes_nothing():
    losses = []
    for block in ({}, JOINT):
        model = model_of("bcl", "simclr", {"temperature": 0.3, **block}).eval().double()
        batch = make_batch()
        batch[1] = [view.double() for view in batch[1]]
        _, loss = outputs(model, batch)
        loss.backward()
        losses.append((loss.detach(), model.projector[0].weight.grad, model.bcl_memory))
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wrapper", ["colt", "bcl", "ts"])
def test_it_trains(wrapper, tmp_path):
    changes = {f"method_kwargs__{wrapper}__joint_views": True, "data__drop_last": False}
    model, data = build(tiny_config(tmp_path, f"{wrapper}_simclr", **changes))
    trainer = fit(model, data, max_epochs=1)
    assert model.joint_views
    assert trainer.global_step == 6  # 42 images in batches of 8, the last of 2


def test_a_branch_of_its_own_is_refused(tmp_path):
    cfg = tiny_config(tmp_path, "bcl_sdclr_simclr", method_kwargs__bcl__joint_views=True)
    with pytest.raises(UserError, match=r"^method_kwargs.bcl.joint_views: expected false over sdc"):
        build(cfg)
