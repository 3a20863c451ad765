# SPDX-License-Identifier: MIT
"""The benchmark's slow forms equal the package's, and its table says pass and fail rightly.

Nothing is timed here.
"""

import sys

import pytest
import torch
import torch.nn.functional as F

from ltplugins.losses.colt import tail_scores
from ltplugins.losses.gh import gh_loss
from ltplugins.losses.terms.bases import nt_xent
from ltplugins.losses.terms.memory import update_memory
from ltplugins.metrics.knn import knn_predict
from tests.kit.paths import ROOT

FOLDER = ROOT / "scripts/bench"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="no checkout: scripts/bench/ is absent")


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    ours = ("references", "timing", "scale", "scale_methods")
    for name in (*ours, "all", "engines", "large", "steps", "terms"):
        sys.modules.pop(name, None)


def test_references_equal_the_package():
    import references

    g = torch.Generator().manual_seed(0)
    t_1, t_2 = (F.normalize(torch.randn(12, 4, generator=g), dim=1) for _ in range(2))
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1])
    slow = references.gh_term(t_1, t_2, prior)
    torch.testing.assert_close(gh_loss(t_1, t_2, prior), slow, atol=1e-4, rtol=0)
    assert abs(gh_loss(t_1, t_2) - slow) > 1e-3  # without the prior

    z_1, z_2 = torch.randn(2, 12, 6, generator=g)
    slow = references.tail_scores(z_1, z_2, 0.2, 3)
    torch.testing.assert_close(tail_scores(z_1, z_2, temperature=0.2, topk=3), slow)
    assert not torch.allclose(tail_scores(z_1, z_2, temperature=0.2, topk=4), slow)
    slow = references.nt_xent(z_1, z_2, 0.2)
    ids = torch.arange(12).repeat(2)
    torch.testing.assert_close(nt_xent(torch.cat([z_1, z_2]), ids, 0.2), slow)
    assert abs(nt_xent(torch.cat([z_1, z_2]), ids, 0.3) - slow) > 1e-2


def test_reference_memory_and_knn_equal_the_package():
    import references

    g = torch.Generator().manual_seed(0)
    states = [(torch.zeros(9, 3), torch.zeros(9, dtype=torch.bool)) for _ in range(2)]
    for _ in range(3):
        indexes, values = torch.randperm(9, generator=g)[:5], torch.randn(5, 3, generator=g)
        update_memory(*states[0], indexes, values, 0.9)
        references.update_memory(*states[1], indexes, values, 0.9)
    torch.testing.assert_close(states[0], states[1])

    bank, queries = torch.randn(40, 5, generator=g), torch.randn(7, 5, generator=g)
    targets = torch.randint(3, (40,), generator=g)
    fast = knn_predict(bank, targets, queries, num_classes=3, k=5, temperature=0.1)
    assert torch.equal(references.knn(bank, targets, queries, 3, 5, 0.1), fast)


def test_rows_and_turns():
    import timing

    assert timing.Row("x", 0.5, 0.5).passes
    assert not timing.Row("x", 0.51, 0.5).passes
    assert timing.Row("x", 7.0, 6.0, at_least=True).passes
    assert not timing.Row("x", 5.0, 6.0, at_least=True).passes

    calls = []
    ticks = iter(range(100))
    work = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    found = timing.medians(work, 2, clock=lambda: next(ticks), calls=2)
    assert calls == list("aabb" * 3)
    assert found == {"a": 0.5, "b": 0.5}


def test_scale_lines_count_bytes():
    import scale

    memory = scale.memory_lines(1000)
    assert memory["GH memory, float32, MB"] == pytest.approx(0.401)
    assert memory["GH memory, float16, MB"] == pytest.approx(0.201)
    orders = scale.sampler_lines(1000)
    for name in ("paired", "two_branch"):
        assert orders[f"order of an epoch, {name}, MB"] == pytest.approx(0.016)


def test_scale_of_methods_is_what_the_documentation_says():
    """The formulas of docs/scale.md against the buffers that the methods register."""
    import scale_methods

    n, classes, slots = 1000, 7, 64
    bcl = scale_methods.build("bcl_simclr", images=n)
    assert scale_methods.state_bytes(bcl, "bcl_") == 9 * n + 8
    iccl = scale_methods.build("iccl", classes=classes)
    assert scale_methods.state_bytes(iccl, "iccl_") == classes * (4 * 128 + 8)
    overrides = ("augmentations=small_grey_gml", f"method_kwargs.queue_size={slots}")
    gml = scale_methods.build("gml", *overrides, classes=classes)
    expected = slots * (4 * gml.features_dim + 17) + 24 * classes
    assert scale_methods.state_bytes(gml, "class_counts", "gml_queue.") == expected
    sdclr = scale_methods.build("sdclr_simclr")
    weights = [sdclr.get_parameter(name) for name, _ in sdclr.sdclr_masks.named_buffers()]
    mask = scale_methods.state_bytes(sdclr, "sdclr_masks.")
    assert mask == sum(weight.numel() for weight in weights) > 0
    assert scale_methods.stateless() == ["ts_simclr", "focal"]


def test_the_engines_of_the_table_are_read():
    import engines
    from all import engine_loaders

    loaders = engine_loaders(batches=1, batch_size=4)
    assert [*loaders] == ["workers", "batched"]
    for loader in loaders.values():
        assert engines.images_per_second(loader) > 0
