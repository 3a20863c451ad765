# SPDX-License-Identifier: MIT
"""kNN against a nested-loop oracle in float64, which wrong variants must fail."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.metrics import knn
from ltplugins.metrics.knn import iter_votes, knn_predict, plan_tiles
from ltplugins.metrics.online_knn import OnlineKNN

NUM_CLASSES, DIM = 7, 6
Weight = Callable[[float], float]


def knn_votes(*args: Any, k: int = 20, temperature: float = 0.07, **options: Any) -> Tensor:
    """All blocks of the votes together."""
    return torch.cat(list(iter_votes(*args, k=k, temperature=temperature, **options)))


def blobs(num: int, seed: int, spread: float = 0.9) -> tuple[Tensor, Tensor]:
    """Overlapping classes with lengths that differ: cosine and euclidean neighbours disagree."""
    centers = torch.randn(NUM_CLASSES, DIM, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(NUM_CLASSES, (num,), generator=generator)
    noise = torch.randn(num, DIM, generator=generator)
    length = 0.2 + 3 * torch.rand(num, 1, generator=generator)
    return length * (centers[targets] + spread * noise), targets


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def negative_distance(a: list[float], b: list[float]) -> float:
    return -math.dist(a, b)


def oracle(
    bank: Tensor, labels: Tensor, test: Tensor, k: int, score: Callable, weight: Weight
) -> Tensor:
    """Votes as shares, one image, one neighbour, one number at a time."""
    rows = []
    for query in test.double().tolist():
        scores = [score(query, other) for other in bank.double().tolist()]
        nearest = sorted(range(len(scores)), key=lambda i: -scores[i])[:k]
        votes = [0.0] * NUM_CLASSES
        for i in nearest:
            votes[int(labels[i])] += weight(scores[i])
        rows.append([v / sum(votes) for v in votes])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 0.5), (90, 0.01)])
def test_votes_equal_the_oracle(k: int, temperature: float) -> None:
    bank, labels = blobs(90, 0)
    test, _ = blobs(40, 1)
    votes = knn_votes(bank, labels, test, num_classes=NUM_CLASSES, k=k, temperature=temperature)
    expected = oracle(bank, labels, test, k, cosine, lambda s: math.exp(s / temperature))
    torch.testing.assert_close(votes.double(), expected, atol=2e-5, rtol=0)
    preds = knn_predict(bank, labels, test, num_classes=NUM_CLASSES, k=k, temperature=temperature)
    assert torch.equal(preds, expected.argmax(dim=1))


def test_the_oracle_rejects_wrong_variants() -> None:
    bank, labels = blobs(90, 0)
    test, _ = blobs(40, 1)
    votes = knn_votes(bank, labels, test, num_classes=NUM_CLASSES, k=20, temperature=0.07).double()
    preds = votes.argmax(dim=1)
    wrong: dict[str, tuple[Callable, Weight]] = {
        "no temperature": (cosine, math.exp),
        "euclidean": (negative_distance, lambda s: math.exp(s / 0.07)),
        "unweighted": (cosine, lambda s: 1.0),
    }
    for name, (score, weight) in wrong.items():
        other = oracle(bank, labels, test, 20, score, weight)
        assert (votes - other).abs().max() > 0.05, name
        assert not torch.equal(preds, other.argmax(dim=1)), name


def test_vote_by_hand() -> None:
    # Similarities to (1, 0): 1, 0.8, 0.6. At T = 0.2 the weights are e^5, e^4, e^3.
    bank = torch.tensor([[2.0, 0.0], [4.0, 3.0], [3.0, 4.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 2])
    votes = knn_votes(bank, labels, torch.tensor([[5.0, 0.0]]), num_classes=3, k=3, temperature=0.2)
    share = math.exp(5) / (math.exp(5) + math.exp(4) + math.exp(3))
    torch.testing.assert_close(votes, torch.tensor([[share, 1 - share, 0.0]]))


def test_euclidean_votes_equal_the_oracle() -> None:
    bank, labels = blobs(60, 0)
    test, _ = blobs(20, 1)
    votes = knn_votes(bank, labels, test, num_classes=NUM_CLASSES, k=9, distance="euclidean")
    expected = oracle(bank, labels, test, 9, negative_distance, lambda s: 1 / (1e-5 - s))
    torch.testing.assert_close(votes.double(), expected, atol=1e-4, rtol=0)


def test_subsets_of_classes() -> None:
    bank, labels = blobs(90, 0)
    test, targets = blobs(40, 1)
    rule = {"num_classes": NUM_CLASSES, "k": 5, "temperature": 0.07}
    whole = knn_predict(bank, labels, test, **rule)
    part = targets >= 5  # only the last classes in the test set
    assert torch.equal(knn_predict(bank, labels, test[part], **rule), whole[part])
    two = (labels == 1) | (labels == 6)
    preds = knn_predict(bank[two], labels[two], test, **rule)
    assert set(preds.tolist()) <= {1, 6}
    assert knn_predict(bank, labels, test[:0], **rule).shape == (0,)


@pytest.mark.parametrize("max_bytes", [1, 5_000, 20_000, 10**9])
def test_tiles_do_not_change_the_result(max_bytes: int) -> None:
    bank, labels = blobs(90, 0)
    test, _ = blobs(40, 1)
    rule = {"num_classes": NUM_CLASSES, "k": 11, "temperature": 0.07}
    whole = knn_votes(bank, labels, test, **rule)
    tiled = knn_votes(bank, labels, test, max_bytes=max_bytes, **rule)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    preds = knn_predict(bank, labels, test, max_bytes=max_bytes, **rule)
    assert torch.equal(preds, whole.argmax(dim=1))


@pytest.mark.parametrize(
    ("bank", "dim", "k"), [(60_000, 512, 20), (115_846, 2048, 200), (1_281_167, 2048, 20)]
)
def test_tile_arithmetic_keeps_the_bound(bank: int, dim: int, k: int) -> None:
    rows, columns, chunk = plan_tiles(10_000, bank, dim, 100, k)
    assert rows > 100  # not so small that the matrix product starves
    assert columns > 10_000  # nor the search for the k best
    candidates = 3 * 18 * k
    block = rows * 4 * (columns * 17 // 16 + 3 * dim + candidates + 4 * 100)
    assert block + 4 * chunk * dim * 4 <= 256 * 2**20


def test_small_tiles() -> None:
    assert plan_tiles(3, 5, 4, 2, 1) == (3, 5, 5)
    assert plan_tiles(3, 5, 4, 2, 1, max_bytes=1) == (1, 1, 1)


def test_tiles_keep_to_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = knn._nearest

    def spy(query: Tensor, bank: Tensor, norms: Tensor, k: int, tile: Tensor, chunk: int) -> tuple:
        sizes.append((len(query), tile.shape[1], chunk))
        return original(query, bank, norms, k, tile, chunk)

    monkeypatch.setattr(knn, "_nearest", spy)
    bank, labels = blobs(90, 0)
    test, _ = blobs(40, 1)
    planned = plan_tiles(40, 90, DIM, NUM_CLASSES, 3, 20_000)
    rule = {"num_classes": NUM_CLASSES, "k": 3, "temperature": 0.07}
    knn_predict(bank, labels, test, max_bytes=20_000, **rule)
    assert len(sizes) > 1
    assert max(sizes) == planned
    assert planned[0] < 40 and planned[1] <= 90


@pytest.mark.parametrize("columns", [1, 5, 63, 64, 65, 1000, 1009])
@pytest.mark.parametrize("k", [1, 4, 15])
def test_the_best_of_groups_are_the_best_of_all(columns: int, k: int) -> None:
    scores = torch.randn(20, columns, generator=torch.Generator().manual_seed(0))
    values, places = knn._top_k(scores, k)
    assert torch.equal(values, scores.topk(min(k, columns), dim=1).values)
    assert torch.equal(scores.gather(1, places), values)
    scores[3, columns // 2] = torch.nan  # must come out, to be refused
    assert knn._top_k(scores, k)[0][3].isnan().any()


def test_low_temperature_and_half_precision_stay_finite() -> None:
    bank, labels = blobs(90, 0)
    test, _ = blobs(40, 1)
    rule = {"num_classes": NUM_CLASSES, "k": 20, "temperature": 0.001}
    assert torch.isfinite(knn_votes(bank, labels, test, **rule)).all()
    assert torch.isfinite(knn_votes(bank.bfloat16(), labels, test.half(), **rule)).all()
    zero = knn_votes(bank, labels, torch.zeros(1, DIM), **rule)
    assert torch.isfinite(zero).all()


def test_autocast_does_not_change_the_neighbours() -> None:
    bank, labels = blobs(90, 0)
    test, _ = blobs(40, 1)
    rule = {"num_classes": NUM_CLASSES, "k": 20, "temperature": 0.07}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        votes = knn_votes(bank, labels, test, **rule)
    assert torch.equal(votes, knn_votes(bank, labels, test, **rule))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 11}, "k is 11 but the bank has 10 images"),
        ({"k": 0}, "k is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"num_classes": 2}, "is outside 0..1"),
        ({"test_feats": torch.ones(3, DIM + 1)}, "shapes (M, D) and (N, D)"),
        ({"train_targets": torch.zeros(9, dtype=torch.long)}, "one label per bank image"),
        ({"train_targets": torch.full((10,), -1)}, "bank label -1"),
        ({"train_feats": torch.full((10, DIM), math.nan)}, "NaN"),
    ],
)
def test_bad_input(change: dict, words: str) -> None:
    bank, labels = blobs(10, 0)
    given: dict = {"train_feats": bank, "train_targets": labels, "test_feats": bank, "k": 3}
    given |= {"num_classes": NUM_CLASSES, "temperature": 0.07} | change
    with pytest.raises(UserError) as error:
        knn_predict(**given)
    assert words in str(error.value)


def test_unknown_distance() -> None:
    with pytest.raises(UserError, match="Did you mean 'euclidean'"):
        OnlineKNN(distance_fx="euclid")  # type: ignore[arg-type]


def fill(metric: OnlineKNN) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    bank, labels = blobs(90, 0)
    test, targets = blobs(40, 1)
    for part in range(0, 90, 32):
        metric(train_features=bank[part : part + 32], train_targets=labels[part : part + 32])
    metric(test_features=test[:25], test_targets=targets[:25])
    metric(test_features=test[25:], test_targets=targets[25:])
    return bank, labels, test, targets


def test_online_equals_offline() -> None:
    metric = OnlineKNN(k=7, T=0.1)
    bank, labels, test, targets = fill(metric)
    acc1, acc5 = metric.compute()
    votes = knn_votes(bank, labels, test, num_classes=NUM_CLASSES, k=7, temperature=0.1)
    preds = knn_predict(bank, labels, test, num_classes=NUM_CLASSES, k=7, temperature=0.1)
    assert acc1 == pytest.approx(100 * (preds == targets).float().mean().item())
    five = votes.topk(5).indices
    hits = sum(
        int(t) in row.tolist() and v[t] > 0 for t, row, v in zip(targets, five, votes, strict=True)
    )
    assert acc5 == pytest.approx(100 * hits / 40)
    assert 0 < acc1 < acc5 < 100


def test_online_resets_and_starts_anew() -> None:
    metric = OnlineKNN(k=7, T=0.1)
    fill(metric)
    first = metric.compute()
    assert metric.train_features == [] and metric.test_targets == []
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute() == (-1.0, -1.0)
    fill(metric)
    assert metric.compute() == first


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_online_copies_still_reset(duplicate: Callable[[OnlineKNN], OnlineKNN]) -> None:
    metric = duplicate(OnlineKNN(k=7, T=0.1))
    fill(metric)
    assert metric.compute()[0] > 0
    assert metric.train_features == []


def test_online_with_few_classes_unlabelled_images_and_a_small_bank(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metric = OnlineKNN(k=20)
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    metric.update(bank, torch.tensor([0, 1, -1]), bank[:2], torch.tensor([0, 1]))
    assert metric.compute() == (100.0, 100.0)
    assert "k=20 but the bank has 2 images" in caplog.text


def test_top5_needs_a_vote() -> None:
    # Six classes, k = 1: the truth gets no vote, so it is not among the five best by luck.
    metric = OnlineKNN(k=1, num_classes=6)
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    metric.update(bank, torch.tensor([5, 0]), bank[:1], torch.tensor([0]))
    assert metric.compute() == (0.0, 0.0)


def test_online_needs_both_or_none() -> None:
    with pytest.raises(UserError, match="test_features and test_targets"):
        OnlineKNN().update(test_features=torch.ones(2, 2))


def test_online_gathers_over_ranks_and_forgets_its_own_part() -> None:
    """torchmetrics puts a rank's own states back after gathering; they must not survive compute."""
    other_bank, other_labels = blobs(50, 2)

    def gather(value: Tensor, group: object = None) -> list[Tensor]:
        other = {(DIM, 90): other_bank, (90,): other_labels}.get((*value.shape[1:], len(value)))
        return [value, value[:0] if other is None else other]

    metric = OnlineKNN(k=7, dist_sync_fn=gather, distributed_available_fn=lambda: True)
    bank, labels, test, targets = fill(metric)
    acc1, _ = metric.compute()
    everything = torch.cat([bank, other_bank]), torch.cat([labels, other_labels])
    rule = {"num_classes": NUM_CLASSES, "k": 7, "temperature": 0.07}
    expected = (knn_predict(*everything, test, **rule) == targets).float().mean().item()
    alone = (knn_predict(bank, labels, test, **rule) == targets).float().mean().item()
    assert acc1 == pytest.approx(100 * expected)
    assert expected != alone
    assert metric.train_features == [] and metric.test_features == []
