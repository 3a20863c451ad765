# SPDX-License-Identifier: MIT
"""Rows of the table that compare a loss's form with its straightforward one: equal, then faster.

Legend: B global batch, K directions, D dim, N training images.
"""

from collections.abc import Iterator

import references
import torch
import torch.nn.functional as F
from timing import Row, ratio
from torch import Tensor

from ltplugins.losses.colt import tail_scores
from ltplugins.losses.gh import geometric_logits, gh_loss, simplex_etf
from ltplugins.losses.terms.bases import nt_xent
from ltplugins.losses.terms.memory import update_memory
from ltplugins.losses.terms.sinkhorn import sinkhorn

B, K, D, N = 512, 100, 128, 50_000


def gh_rows(rounds: int) -> Iterator[Row]:
    """The GH term on a new network's embeddings, and on logits as after some epochs of GH."""
    prior = torch.softmax(torch.randn(K), dim=0)
    etf = simplex_etf(K, D)
    new = [geometric_logits(z, etf) for z in torch.randn(2, B, D)]
    # Each image near one direction, directions long-tailed: the largest logit of an image is 0.5,
    # as after 30 epochs of GH on the demo's data. Sinkhorn then needs 130 iterations, not 10.
    shares = 100.0 ** -torch.linspace(0, 1, K)
    nearest = F.one_hot(torch.multinomial(shares, B, replacement=True), K)
    trained = [F.normalize(0.6 * nearest + 0.1 * torch.randn(B, K), dim=1) for _ in range(2)]
    for name, views, its_prior in (
        ("embeddings of a new network", new, prior),
        ("logits as after training", trained, shares / shares.sum()),
    ):
        t_1, t_2 = (t.requires_grad_() for t in views)
        for t in (t_1, t_2):
            q = references.sinkhorn(t.detach(), its_prior, 0.05, 300)
            assert (sinkhorn(t, its_prior) - q).abs().max() < 1e-4
        yield ratio(
            f"GH term, {name}",
            lambda a=t_1, b=t_2, p=its_prior: gh_loss(a, b, p).backward(),
            lambda a=t_1, b=t_2, p=its_prior: references.gh_term(a, b, p).backward(),
            1 / 3,
            rounds,
        )


def memory_row(rounds: int) -> Row:
    """GH's memory update; the batch holds every image once, as a shuffled epoch's does."""
    values = F.normalize(torch.randn(B, K), dim=1)
    states = [(torch.zeros(N, K), torch.zeros(N, dtype=torch.bool)) for _ in range(2)]
    updates = [
        lambda i: update_memory(*states[0], i, values, 0.9),
        lambda i: references.update_memory(*states[1], i, values, 0.9),
    ]
    for indexes in torch.randperm(N)[: 3 * B].split(B):
        for update in updates:
            update(indexes)
            update(indexes.roll(1))
    assert torch.equal(states[0][1], states[1][1])
    torch.testing.assert_close(states[0][0], states[1][0])
    indexes = torch.randperm(N)[:B]
    return ratio("GH memory update", *(lambda u=u: u(indexes) for u in updates), 1 / 10, rounds)


def tail_score_row(rounds: int) -> Row:
    z_1, z_2 = torch.randn(2, B, D)
    forms = [
        lambda: tail_scores(z_1, z_2, temperature=0.2, topk=10),
        lambda: references.tail_scores(z_1, z_2, 0.2, 10),
    ]
    torch.testing.assert_close(forms[0](), forms[1]())
    return ratio("COLT tail scores", *forms, 1 / 10, rounds)


def nt_xent_row(rounds: int) -> Row:
    views = torch.randn(2, B, D).requires_grad_()
    ids = torch.arange(B).repeat(2)

    def backward(loss: Tensor) -> Tensor:
        views.grad = None
        loss.backward()
        return views.grad

    forms = [
        lambda: backward(nt_xent(views.flatten(0, 1), ids, 0.2)),
        lambda: backward(references.nt_xent(views[0], views[1], 0.2)),
    ]
    torch.testing.assert_close(forms[0](), forms[1](), rtol=1e-4, atol=1e-8)
    return ratio("NT-Xent, forward and backward, D = 128", *forms, 1 / 2, rounds)


def rows(rounds: int) -> Iterator[Row]:
    torch.manual_seed(0)
    yield from gh_rows(rounds)
    yield memory_row(rounds)
    yield tail_score_row(rounds)
    yield nt_xent_row(rounds)
