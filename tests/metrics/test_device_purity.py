# SPDX-License-Identifier: MIT
"""kNN and features on a GPU that is not there: no tensor is left on the CPU, no tile waits."""

from collections.abc import Iterator

import pytest
import torch

from ltplugins.metrics import knn
from ltplugins.metrics.online_knn import OnlineKNN
from tests.kit.fake_cuda import OTHER_DEVICE, WAITS, FakeCuda, fake_cuda

BANK, TEST, DIM, CLASSES = 700, 30, 8, 5


@pytest.fixture
def mode() -> Iterator[FakeCuda]:
    with fake_cuda() as mode:
        yield mode


def tiles(mode: FakeCuda, distance: knn.Distance = "cosine", bank_on: str = "cuda") -> list:
    """Votes of test images on the device, in several blocks of several tiles each."""
    mode.strict = bank_on == "cuda"  # a bank on the CPU comes over tile by tile
    bank, test = torch.randn(BANK, DIM, device=bank_on), torch.randn(TEST, DIM, device="cuda")
    labels = torch.randint(CLASSES, (BANK,), device=bank_on)
    found = knn.iter_votes(
        bank,
        labels,
        test,
        num_classes=CLASSES,
        k=3,
        temperature=0.1,
        distance=distance,
        max_bytes=20_000,
    )
    return list(found)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the looks that an evaluation takes once: at the labels, and at whether all is finite.

    A value is asked for on purpose there.
    """
    monkeypatch.setattr(knn, "_check", lambda *args: None)
    monkeypatch.setattr(knn, "_refuse_what_is_not_finite", lambda best: None)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("distance", knn.DISTANCES)
@pytest.mark.parametrize("bank_on", ["cuda", "cpu"])
def test_votes_are_made_on_the_device(distance: knn.Distance, bank_on: str, mode: FakeCuda) -> None:
    votes = tiles(mode, distance, bank_on)
    assert len(votes) > 1
    assert {vote.device.type for vote in votes} == {"cuda"}
    assert sum(len(vote) for vote in votes) == TEST


@pytest.mark.usefixtures("unchecked")
def test_what_is_planted_is_found(mode: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    top_k = knn._top_k
    with monkeypatch.context() as patch:
        patch.setattr(knn, "_top_k", lambda scores, k: top_k(scores + torch.ones(1, 1), k))
        with pytest.raises(OTHER_DEVICE):
            tiles(mode)
    with monkeypatch.context() as patch:
        patch.setattr(knn, "_top_k", lambda scores, k: top_k(scores * float(scores.max()), k))
        with pytest.raises(WAITS):
            tiles(mode)


def test_the_online_store_waits_for_nothing(mode: FakeCuda) -> None:
    """Images without a label are left out at the end."""
    metric = OnlineKNN(k=2)
    targets = torch.randint(CLASSES, (6,), device="cuda")
    for name in ("train", "test"):
        feats = torch.randn(6, DIM, device="cuda")
        metric(**{f"{name}_features": feats, f"{name}_targets": targets})
