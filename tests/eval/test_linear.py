# SPDX-License-Identifier: MIT
"""The probe: seeded draw, choice on its own split only, agreement of the two engines."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.eval import linear
from ltplugins.eval.linear import draw_shots, linear_probe
from ltplugins.eval.logistic import fit_softmax

NUM_CLASSES, DIM = 4, 12


def data(per_class: int, seed: int, spread: float = 1.5) -> tuple[Tensor, Tensor]:
    centers = torch.randn(NUM_CLASSES, DIM, generator=torch.Generator().manual_seed(5))
    targets = torch.arange(NUM_CLASSES).repeat(per_class)
    noise = torch.randn(len(targets), DIM, generator=torch.Generator().manual_seed(seed))
    scale = torch.logspace(-3, 3, DIM)  # raw units differ by a million: only standardised works
    return (centers[targets] + spread * noise) * scale + 7, targets


def probe(**change: Any) -> linear.ProbeResult:
    feats, targets = data(30, 0)
    test, _ = data(50, 1)
    given: dict[str, Any] = {"num_classes": NUM_CLASSES} | change
    return linear_probe(
        given.pop("feats", feats), given.pop("targets", targets), given.pop("test", test), **given
    )


def test_it_learns_and_says_how() -> None:
    result = probe()
    accuracy = (result.preds == data(50, 1)[1]).float().mean()
    assert accuracy > 0.75
    assert result.n_train == 120
    assert result.converged
    assert set(result.val_accuracy) == set(linear.C_GRID)
    assert result.chosen_c in linear.C_GRID
    best = max(result.val_accuracy.values())
    assert result.val_accuracy[result.chosen_c] == best
    assert all(s < best for c, s in result.val_accuracy.items() if c < result.chosen_c)


def test_test_images_do_not_influence_the_model() -> None:
    test, _ = data(50, 1)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    plain, shuffled, other = probe(), probe(test=test[order]), probe(test=test * 100 - 3)
    assert torch.equal(plain.preds[order], shuffled.preds)
    assert plain.val_accuracy == shuffled.val_accuracy == other.val_accuracy
    assert plain.chosen_c == other.chosen_c


def test_seeded_draw() -> None:
    same, again, other = probe(shots=5), probe(shots=5), probe(shots=5, seed=1)
    assert torch.equal(same.preds, again.preds)
    assert same.val_accuracy == again.val_accuracy
    assert same.n_train == 20
    assert not torch.equal(same.preds, other.preds)


def test_draw_is_per_class_and_without_replacement() -> None:
    labels = np.array([0] * 10 + [1] * 3 + [2] * 5)
    drawn = draw_shots(labels, 3, 3, np.random.default_rng(0))
    assert np.bincount(labels[drawn]).tolist() == [3, 3, 3]
    assert len(set(drawn)) == 9
    assert set(drawn) >= {10, 11, 12}
    assert draw_shots(labels, 3, None, np.random.default_rng(0)).tolist() == list(range(18))


def test_the_choice_uses_only_the_validation_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fit is on a part, except the last, which is on all; test images come only then."""
    calls = []
    original = linear.fit_predict

    def spy(feats: Tensor, labels: np.ndarray, other: Tensor, grid: Any, *rest: Any) -> Any:
        calls.append((len(feats), len(other), len(grid)))
        return original(feats, labels, other, grid, *rest)

    monkeypatch.setattr(linear, "fit_predict", spy)
    probe(shots=10)
    assert calls == [(32, 8, len(linear.C_GRID)), (40, 200, 1)]


def test_final_fit_equals_plain_sklearn() -> None:
    feats, targets = data(30, 0)
    test, _ = data(50, 1)
    result = probe(grid=[0.05])
    inputs = (feats - feats.mean(0)) / feats.std(0, correction=0)
    queries = (test - feats.mean(0)) / feats.std(0, correction=0)
    model = LogisticRegression(C=0.05, max_iter=500).fit(inputs.numpy(), targets.numpy())
    assert np.mean(result.preds.numpy() == model.predict(queries.numpy())) > 0.99
    assert result.val_accuracy == {} and result.chosen_c == 0.05


@pytest.mark.parametrize("c", [1e-3, 1.0])
def test_torch_engine_finds_sklearns_optimum(c: float) -> None:
    feats, targets = data(30, 0)
    inputs = (feats - feats.mean(0)) / feats.std(0, correction=0)
    weight, converged = fit_softmax(inputs.double(), targets, NUM_CLASSES, c, tolerance=1e-7)
    assert converged
    model = LogisticRegression(C=c, tol=1e-7, max_iter=1000).fit(
        inputs.double().numpy(), targets.numpy()
    )
    ours = torch.softmax(inputs.double() @ weight[:, :-1].T + weight[:, -1], dim=1)
    theirs = torch.from_numpy(model.predict_proba(inputs.double().numpy()))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_the_adjusted_loss_is_at_its_optimum(tau: float) -> None:
    """By the loss as the paper writes it: log(1 + sum of (pi_k / pi_y)^tau e^(f_k - f_y))."""
    feats, targets = data(12, 0)
    keep = (targets != 2) | (torch.arange(len(targets)) % 3 == 0)
    feats = (feats[keep] - feats[keep].mean(0)) / feats[keep].std(0)
    x, y = feats.double().numpy(), targets[keep].numpy()
    share = np.bincount(y) / len(y)

    def loss(flat: np.ndarray) -> float:
        weight = flat.reshape(NUM_CLASSES, -1)
        total = 0.0
        for row, label in zip(x, y, strict=True):
            f = weight[:, :-1] @ row + weight[:, -1]
            total += np.log(np.sum((share / share[label]) ** tau * np.exp(f - f[label])))
        return total / len(y) + np.square(weight[:, :-1]).sum() / (2 * 0.1 * len(y))

    offset = tau * torch.from_numpy(share).log()
    inputs = torch.from_numpy(x), torch.from_numpy(y), NUM_CLASSES, 0.1
    ours, converged = fit_softmax(*inputs, tolerance=1e-6, offset=offset)
    assert converged
    best = loss(ours.numpy().ravel())
    plain, _ = fit_softmax(*inputs, tolerance=1e-6)
    twice, _ = fit_softmax(*inputs, tolerance=1e-6, offset=2 * offset)
    other_way, _ = fit_softmax(*inputs, tolerance=1e-6, offset=-offset)
    for wrong in (plain, twice, other_way):
        assert loss(wrong.numpy().ravel()) > best + 1e-4
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert loss(ours.numpy().ravel() + 1e-2 * rng.normal(size=ours.numel())) > best


def test_adjusting_moves_nothing_where_classes_are_equal() -> None:
    plain, adjusted = probe(shots=10, engine="torch"), probe(shots=10, engine="torch", adjust=1.0)
    assert torch.equal(plain.preds, adjusted.preds)
    assert plain.chosen_c == adjusted.chosen_c


def test_engines_agree() -> None:
    first, second = probe(), probe(engine="torch")
    assert (first.preds == second.preds).float().mean() > 0.98
    assert second.converged and second.n_train == first.n_train
    for c, score in first.val_accuracy.items():
        assert abs(second.val_accuracy[c] - score) <= 0.1


def test_unconverged_fit_is_recorded_quietly(recwarn: pytest.WarningsRecorder) -> None:
    assert not probe(max_iter=1, grid=[10.0]).converged
    assert not probe(max_iter=1, grid=[10.0], engine="torch").converged
    assert len(recwarn) == 0


def test_full_probe_with_absent_classes_and_dead_features() -> None:
    feats, targets = data(30, 0)
    keep = targets != 1
    feats[:, 3] = 4.0  # a dead unit: no spread to divide by
    test = data(50, 1)[0]
    for engine in ("sklearn", "torch"):
        result = probe(feats=feats[keep], targets=targets[keep], test=test, engine=engine)
        assert set(result.preds.tolist()) <= {0, 2, 3}


def test_one_shot_has_nothing_to_validate_on(caplog: pytest.LogCaptureFixture) -> None:
    result = probe(shots=1)
    assert result.n_train == 4 and result.val_accuracy == {}
    assert "too few images for a validation split" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shots": 31}, "a 31-shot probe needs 31 labelled images per class, but class 0 has 30"),
        ({"shots": 2, "num_classes": 5}, "class 4 has 0"),
        ({"shots": 0}, "shots is 0"),
        ({"shots": -0.5}, "shots is -0.5"),
        ({"num_classes": 3}, "probe label 3 is outside 0..2"),
        ({"targets": torch.full((120,), 2)}, "at least two classes"),
        ({"engine": "torhc"}, "Did you mean 'torch'"),
        ({"grid": [0.0]}, "positive values of C"),
    ],
)
def test_bad_input(change: dict, words: str) -> None:
    with pytest.raises(UserError) as error:
        probe(**change)
    assert words in str(error.value)
