# SPDX-License-Identifier: MIT
"""The projector of the long-tail papers by ``method_kwargs.proj_head``, on every host."""

import pytest
import torch
from torch import nn

import ltplugins
from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from ltplugins.host.build import build_model
from ltplugins.host.head import OfficialHead
from ltplugins.runs.checkpoint import open_run
from ltplugins.runs.model import load_model
from ltplugins.stages.blocks import config_blocks
from ltplugins.stages.pretrain import pretrain
from tests.kit.runs import assert_same_run, interrupted
from tests.kit.tiny import tiny_config

OFFICIAL = {"method_kwargs__proj_head": "official"}


def built(cfg):
    """The method as a stage builds it."""
    ltplugins.register()
    config = resolve(cfg, config_blocks).with_counts(42, 3)
    return build_model(config.host, 1, record_small_stem=False)


def shapes(head):
    """(in, out, has a bias) of a linear layer, the width of a norm, a name else."""
    found = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            found.append((layer.in_features, layer.out_features, layer.bias is not None))
        else:
            found.append(getattr(layer, "num_features", type(layer).__name__))
    return found


def test_the_official_forms():
    assert shapes(OfficialHead(6, 3)) == [(6, 6, True), 6, "ReLU", (6, 3, False), 3]
    hidden = [(6, 6, True), 6, "ReLU", (6, 6, False), 6, "ReLU"]
    assert shapes(OfficialHead(6, 3, layers=3)) == [*hidden, (6, 3, False), 3]
    g = torch.Generator().manual_seed(0)
    z = OfficialHead(6, 3)(torch.randn(16, 6, generator=g))
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(3), atol=1e-6, rtol=0)


TWO = "simclr supcon focal gh_simclr colt_simclr bcl_simclr ts_simclr gh_sdclr_simclr"


@pytest.mark.parametrize("method", [*TWO.split(), "bcl_sdclr_simclr", "sdclr_simclr"])
def test_a_method_has_it_where_it_is_asked_for(method, tmp_path):
    layers = 3 if method == "sdclr_simclr" else 2
    model = built(tiny_config(tmp_path, method, **OFFICIAL))
    assert shapes(model.projector) == shapes(OfficialHead(model.features_dim, 8, layers))
    counted = [p for group in model.learnable_params for p in group["params"]]
    assert {id(p) for p in model.projector.parameters()} <= {id(p) for p in counted}
    if "sdclr" in method:  # a norm of its own for each branch
        norms = dict(model.sdclr_norms.named_modules())
        assert f"projector.{len(model.projector) - 1}" in norms
    model = built(tiny_config(tmp_path, method))
    assert not isinstance(model.projector, OfficialHead)
    assert shapes(model.projector)[0][1] == 16 or method == "focal"


@pytest.mark.parametrize(
    ("method", "value", "text"),
    [
        ("simclr", "offical", r"proj_head: expected one of solo, official; got 'offical'"),
        ("gh_simclr", 3, r"proj_head: expected one of solo, official; got 3"),
        ("focal", "none", r"proj_head: expected one of solo, official; got 'none'"),
        ("gh_byol", "official", r"method_kwargs.proj_head"),
        ("mocov2plus", "official", r"method_kwargs.proj_head"),
    ],
)
def test_it_is_refused_before_any_work(method, value, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = tiny_config(tmp_path, method, method_kwargs__proj_head=value)
    cfg.data.train_path = "nowhere.npz"  # what would be refused next
    with pytest.raises(UserError, match=text) as error:
        pretrain(cfg)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_broken_run_goes_on_and_its_backbone_opens(tmp_path, monkeypatch):
    cfg = tiny_config(tmp_path, "sdclr_simclr", max_epochs=2, **OFFICIAL)
    whole, broken = cfg.copy(), cfg.copy()
    whole.output_dir, broken.output_dir = str(tmp_path / "a"), str(tmp_path / "b")
    pretrain(whole)
    interrupted(broken.copy(), 1, 2, monkeypatch)
    pretrain(broken)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    run = open_run(str(tmp_path / "a"))
    assert "projector.7.running_mean" in run.state
    model = load_model(run, 3, small_stem=False)
    assert isinstance(model.projector, OfficialHead)
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, run.state[f"backbone.{key}"]), key
