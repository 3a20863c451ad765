# SPDX-License-Identifier: MIT
"""One suite over every importable host: build, two steps, names, equal numbers."""

import logging
import sys
import types
import warnings
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tests.kit.hosts import (
    CLASSES,
    HOSTS,
    NAMES,
    SOLO_HEADS,
    host_methods,
    loader,
    make_batch,
    make_cfg,
    needs_solo,
    tiny_cfg,
)
from tests.kit.runs import quiet_trainer

LOSS_METRIC = {
    "barlow_twins": "train_barlow_loss",
    "byol": "train_neg_cos_sim",
    "mocov2plus": "train_nce_loss",
    "simclr": "train_nce_loss",
    "simsiam": "train_neg_cos_sim",
    "supcon": "train_nce_loss",
    "vicreg": "train_vicreg_loss",
}
MOMENTUM = ("byol", "mocov2plus")

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class FakeKNN(torch.nn.Module):
    """Stands where the online kNN will: records what it is fed."""

    def __init__(self, k: int = 20, T: float = 0.07, distance_fx: str = "cosine") -> None:
        super().__init__()
        self.options, self.fed, self.resets = (k, distance_fx), [], 0

    def forward(self, **kwargs: Any) -> None:
        self.fed.append({key: tuple(value.shape) for key, value in kwargs.items()})

    def compute(self) -> tuple[float, float]:
        return 50.0, 100.0

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture
def fake_knn(monkeypatch: pytest.MonkeyPatch) -> type[FakeKNN]:
    module = types.ModuleType("ltplugins.metrics.online_knn")
    module.OnlineKNN = FakeKNN  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ltplugins.metrics.online_knn", module)
    return FakeKNN


def fit(model: Any) -> pl.Trainer:
    """An epoch with its validation, before which Lightning's own check runs two batches of it."""
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=1.0, num_sanity_val_steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader(), loader(train=False))
    return trainer


def small_cfg(host: str, method: str, **changes: Any) -> Any:
    """solo-learn has no tiny backbone; its ResNet-18 with the small stem has to do."""
    return make_cfg(method, **changes) if host == "solo" else tiny_cfg(method, **changes)


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("host", HOSTS)
def test_two_steps(host: str, method: str) -> None:
    cfg = small_cfg(host, method, max_epochs=1, scheduler__warmup_epochs=0)
    model = host_methods(host)[method](cfg)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer = fit(model)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    assert trainer.global_step == 2
    names = {"train_class_loss", "train_acc1", "val_loss", "val_acc1", "val_acc5"}
    assert names | {LOSS_METRIC[method]} <= set(metrics)
    assert all(torch.isfinite(torch.tensor(list(metrics.values()))))
    moved = {
        key.split(".")[0]
        for key, value in model.state_dict().items()
        if (value != before[key]).any()
    }
    assert {"backbone", "projector", "classifier"} <= moved
    assert ({"momentum_backbone", "momentum_projector"} <= moved) == (method in MOMENTUM)
    assert ("predictor" in moved) == (method in ("byol", "simsiam"))
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("method", SOLO_HEADS)
def test_solo_methods_beyond_ours(method: str) -> None:
    """They run on today's libraries and yield the ``z`` that wrappers need."""
    cfg = make_cfg(method, max_epochs=1, scheduler__warmup_epochs=0, data__num_samples=8)
    cfg.devices = [0]  # two of them read the world size from here
    model = host_methods("solo")[method](cfg)
    trainer = fit(model)
    assert trainer.global_step == 2
    assert trainer.callback_metrics["train_class_loss"].isfinite()
    _, views, targets = make_batch()
    assert model.base_training_step(views[0], targets)["z"].shape[0] == 4


test_solo_methods_beyond_ours.pytestmark += needs_solo  # type: ignore[attr-defined]


def test_every_solo_method_is_looked_at() -> None:
    own = {n for n, cls in host_methods("solo").items() if cls.__module__.startswith("solo.")}
    assert own == {"base", "linear", "mae", *NAMES, *SOLO_HEADS}


test_every_solo_method_is_looked_at.pytestmark = needs_solo  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("host", HOSTS)
def test_what_wrappers_rely_on(host: str, method: str) -> None:
    cfg = small_cfg(host, method)
    cls = host_methods(host)[method]
    model = cls(cls.add_and_assert_specific_cfg(cfg))
    assert (model.num_large_crops, model.num_small_crops, model.max_epochs) == (2, 0, 2)
    assert (model.num_classes, model.lr) == (CLASSES, 0.1)
    if method in ("simclr", "supcon", "mocov2plus"):
        assert model.temperature == 0.2
    _, views, targets = make_batch()
    out = model.base_training_step(views[0], targets)
    assert {"feats", "logits", "loss", "acc1", "acc5", "z"} <= set(out)
    assert out["feats"].shape == (4, model.features_dim)
    assert out["z"].shape == (4, 8)
    assert ("p" in out) == (method in ("byol", "simsiam"))
    if method in MOMENTUM:
        momentum = model.momentum_forward(views[0])
        assert momentum["z"].shape == (4, 8)
        assert not momentum["z"].requires_grad
        assert len(model.momentum_pairs) == 2
    names = [group["name"] for group in model.learnable_params]
    assert names[:3] == ["backbone", "classifier", "projector"]


@pytest.mark.parametrize("host", HOSTS)
def test_training_step_hands_views_on_as_lists(host: str) -> None:
    """A wrapper sees the base class's dict: one list entry a view, small crops after the large."""
    base = host_methods(host)["simclr"].__mro__
    base_cls = next(cls for cls in base if cls.__name__ == "BaseMethod")
    cfg = small_cfg(host, "simclr", data__num_small_crops=1)
    model = host_methods(host)["simclr"](cfg)
    batch = make_batch(views=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outs = base_cls.training_step(model, batch, 0)
    assert [len(outs[key]) for key in ("z", "feats", "logits")] == [3, 3, 2]
    assert outs["loss"].ndim == 0
    assert outs["loss"].requires_grad


@pytest.mark.parametrize("method", NAMES)
def test_stand_in_equals_solo(method: str) -> None:
    """Same weights, same batch: same keys, loss, gradients, parameter groups, validation."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        solo = host_methods("solo")[method](make_cfg(method))
        ours = host_methods("builtin")[method](make_cfg(method))
        assert list(ours.state_dict()) == list(solo.state_dict())
        ours.load_state_dict(solo.state_dict())
        batch = make_batch()
        losses = [model.training_step(batch, 0) for model in (ours, solo)]
        torch.testing.assert_close(losses[0], losses[1].reshape(()), rtol=1e-5, atol=1e-5)
        for loss in losses:
            loss.backward()
        for (name, p), q in zip(ours.named_parameters(), solo.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), name
            if p.grad is not None:
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-4, msg=name)
        for p, q in zip(ours.buffers(), solo.buffers(), strict=True):
            torch.testing.assert_close(p, q)
        assert described(ours.learnable_params) == described(solo.learnable_params)
        for model in (ours, solo):
            model.eval()
            model.validation_step((batch[1][0], batch[2]), 0)
        for key in ("val_loss", "val_acc1", "val_acc5"):
            mine, theirs = (float(m.validation_step_outputs[0][key]) for m in (ours, solo))
            assert mine == pytest.approx(theirs, rel=1e-5)


test_stand_in_equals_solo.pytestmark += needs_solo  # type: ignore[attr-defined]


def described(groups: list[dict[str, Any]]) -> list[Any]:
    return [
        {key: len(list(v)) if key == "params" else v for key, v in group.items()}
        for group in groups
    ]


@pytest.mark.parametrize("method", NAMES)
def test_unlabelled_batch_is_finite(method: str) -> None:
    """No label: the class loss is 0 and not NaN, and nothing reaches the classifier."""
    model = host_methods("builtin")[method](tiny_cfg(method, momentum__classifier=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = model.training_step(make_batch(labelled=False), 0)
    loss.backward()
    assert loss.isfinite()
    assert not model.classifier.weight.grad.any()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_accuracy_counts_labelled_rows_only() -> None:
    from ltplugins.losses.terms.bases import accuracy, class_loss

    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    targets = torch.tensor([0, 2, -1, -1])
    assert accuracy(logits, targets, 1).item() == 50.0
    assert accuracy(logits, targets, 5).item() == 100.0
    expected = torch.nn.functional.cross_entropy(logits[:2], targets[:2])
    torch.testing.assert_close(class_loss(logits, targets), expected)


@pytest.mark.parametrize("host", HOSTS)
def test_online_knn_is_fed_and_logged(host: str, fake_knn: type[FakeKNN]) -> None:
    if host == "solo":
        import solo.methods.base as solo_base

        from ltplugins.host.solo import apply_fixes

        apply_fixes()
        assert apply_fixes()
        assert solo_base.WeightedKNNClassifier is fake_knn
    knn_eval = {"enabled": True, "k": 3, "distance_func": "cosine"}
    cfg = small_cfg(host, "simclr", max_epochs=1, knn_eval=knn_eval)
    model = host_methods(host)["simclr"](cfg)
    trainer = fit(model)
    assert model.knn.options == (3, "cosine")
    assert trainer.callback_metrics["val_knn_acc1"] == 50.0
    assert trainer.callback_metrics["val_knn_acc5"] == 100.0
    width = model.features_dim
    train = {"train_features": (8, width), "train_targets": (8,)}
    test = {"test_features": (4, width), "test_targets": (4,)}
    assert model.knn.fed == [train, train, test, test]  # the sanity check's batches stay out


def test_momentum_classifier_trains_and_validates() -> None:
    cfg = tiny_cfg("byol", momentum__classifier=True, max_epochs=1, scheduler__name="none")
    model = host_methods("builtin")["byol"](cfg)
    before = model.momentum_classifier.weight.clone()
    trainer = fit(model)
    assert (model.momentum_classifier.weight != before).any()
    names = ("train_momentum_class_loss", "train_momentum_acc1", "momentum_val_loss", "tau")
    assert set(names) <= set(trainer.callback_metrics)


def test_validation_averages_over_images_not_batches() -> None:
    """4 and 1 images: the mean is weighted 4 to 1, unlabelled images not at all."""
    model = host_methods("builtin")["simclr"](tiny_cfg("simclr"))
    model.eval()
    logged: dict[str, Any] = {}
    model.log_dict = lambda metrics, **kwargs: logged.update(metrics, **kwargs)
    images = make_batch(6)[1][0]
    with torch.no_grad():
        guesses = model(images)["logits"].argmax(1)
        wrong = (guesses[4:5] + 1) % CLASSES
        model.validation_step((images[:4], guesses[:4]), 0)
        model.validation_step((images[4:], torch.cat([wrong, torch.tensor([-1])])), 1)
        model.on_validation_epoch_end()
    assert float(logged["val_acc1"]) == pytest.approx(80.0)
    assert logged["batch_size"] == 5
    assert logged["sync_dist"]
    assert model.validation_step_outputs == []
