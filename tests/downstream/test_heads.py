# SPDX-License-Identifier: MIT
"""Classifiers and what re-balances them: values by hand, what each leaves alone, seeds."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ltplugins.downstream.heads import (
    Refit,
    balanced_hits,
    build_head,
    choose_tau,
    linear,
    rescaled,
    retrained,
    tau_normalised,
)

HOW = Refit(epochs=20, lr=0.05, batch_size=16, seed=0)


def images(counts=(90, 30, 6), dim=4, seed=0):
    """Clusters that overlap, and a classifier trained on them as often as they come."""
    g = torch.Generator().manual_seed(seed)
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = 1.5 * F.normalize(torch.randn(len(counts), dim, generator=g), dim=1)
    return centres[targets] + torch.randn(len(targets), dim, generator=g), targets


@pytest.fixture(scope="module")
def trained():
    feats, targets = images()
    head = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(head(feats), targets).backward()
        optimizer.step()
    return head, feats, targets


def test_a_cosine_head_knows_no_lengths():
    head = build_head("cosine", 4, 3, 16.0)
    x = torch.randn(5, 4)
    torch.testing.assert_close(head(x), head(7 * x))
    expected = 16 * F.cosine_similarity(x[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(x), expected)
    assert isinstance(build_head("crt", 4, 3, 16.0), nn.Linear)


def test_tau_moves_from_the_trained_weights_to_directions(trained):
    head, *_ = trained
    torch.testing.assert_close(tau_normalised(head, 0.0).weight, head.weight)
    assert tau_normalised(head, 1.0).weight.norm(dim=1).tolist() == pytest.approx([1, 1, 1])
    half = tau_normalised(head, 0.5)
    torch.testing.assert_close(half.weight.norm(dim=1), head.weight.norm(dim=1).sqrt())
    assert not half.bias.any() and head.bias.any()


def test_tau_is_chosen_by_balanced_accuracy():
    """Feature 1 is class 0, feature 2 class 1; class 0's weights are nine times as long."""
    head = linear(torch.tensor([[9.0, 0.0], [0.0, 1.0]]), torch.zeros(2))
    feats = torch.tensor([[1.0, 0.0]] * 10 + [[0.4, 1.0]])
    targets = torch.tensor([0] * 10 + [1])
    assert balanced_hits(head(feats).argmax(dim=1), targets) == 0.5
    # 9^(1 - tau) * 0.4 < 1 from tau = 0.583 on.
    assert choose_tau(head, feats, targets) == 0.6


@pytest.mark.parametrize("refit", [retrained, rescaled])
def test_it_serves_the_rare_better(refit, trained):
    head, feats, targets = trained
    before, after = head(feats), refit(head, feats, targets, HOW)(feats)
    rare = targets == 2
    hits = [(logits.argmax(dim=1) == targets)[rare].float().mean() for logits in (before, after)]
    assert hits[1] > hits[0] + 0.2
    scores = [balanced_hits(logits.argmax(dim=1), targets) for logits in (before, after)]
    assert scores[1] > scores[0] + 0.05


def test_lws_leaves_the_directions(trained):
    head, feats, targets = trained
    new = rescaled(head, feats, targets, HOW)
    torch.testing.assert_close(F.normalize(new.weight, dim=1), F.normalize(head.weight, dim=1))
    factors = (new.weight / head.weight).mean(dim=1)
    assert (factors - 1).abs().max() > 0.1
    assert not new.bias.any() and head.bias.any()


def test_crt_starts_anew_and_by_its_seed(trained):
    head, feats, targets = trained
    other = linear(torch.zeros(3, 4), torch.zeros(3))
    runs = [retrained(start, feats, targets, HOW).weight for start in (head, other)]
    assert torch.equal(*runs)
    again = retrained(head, feats, targets, Refit(20, 0.05, 16, seed=1)).weight
    assert not torch.equal(runs[0], again)


def test_neither_draws_from_the_global_generator(trained):
    head, feats, targets = trained
    state = torch.get_rng_state()
    retrained(head, feats, targets, HOW)
    rescaled(head, feats, targets, HOW)
    assert torch.equal(state, torch.get_rng_state())
