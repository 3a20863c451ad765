# SPDX-License-Identifier: MIT
"""COLT's selection as a whole: features, clusters, budgets, and the OOD images of the next epochs.

Paper and official code: see ``losses/colt.py``. Differences of this part:
- Ranks share the images of a pass without padding, none twice and none left out; the official code
  fails where the number of images is a multiple of the ranks and drops the pool's last batch.
- k-means and the choice are rank 0's, which tells the others.
- Above ``minibatch_above`` training images, mini-batch k-means.
- Of a pool of M images only M x C cosines are kept, never its features.

Legend: N training images, M OOD images, D dim, C clusters, W ranks, K budget.
"""

import logging
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.distributed import gather_no_grad, on_first_rank, rank, world_size
from ltplugins.core.errors import UserError
from ltplugins.core.modes import looked_at
from ltplugins.losses.terms.ood_selection import allocate_budget, select_ood

log = logging.getLogger(__name__)


class Subset(NamedTuple):
    """Int[K], unique positions in the pool, cluster after cluster; Int[C], how many are of each."""

    positions: np.ndarray
    sizes: np.ndarray


@torch.no_grad()
def choose_subset(
    model: Any, data: Any, scores: Tensor, filled: Tensor, budget: int, options: Any
) -> Subset:
    """Choose which OOD images the next epochs draw: features, clusters, budgets, images.

    Args:
        model: the method; ``model(images)["z"]`` is used in eval mode and its mode restored.
        data: an ``LTDataModule`` with a pool.
        scores, filled: Float[N] tail scores, low = tail, and Bool[N], which images have one.
        budget: K.
        options: ``COLTConfig``.

    Returns:
        min(K, decodable images) positions; the same on every rank.

    Raises:
        UserError: features that are not finite, a corrupt image under ``data.on_corrupt: fail``.
    """
    with looked_at(model):
        feats, ok = _over_ranks(model, data, "id", data.num_samples, None)
        known = ok.cpu()
        centers, means = on_first_rank(
            lambda: clusters_and_means(
                feats[ok].cpu(), scores.cpu()[known], filled.cpu()[known], options
            )
        )
        cosines, ok = _over_ranks(model, data, "ood", data.num_ood, centers)
    pool = torch.nonzero(ok.cpu()).squeeze(1)

    def choose() -> Subset:
        budgets = allocate_budget(
            means, min(budget, len(pool)), temperature=options.cluster_temperature
        )
        chosen = select_ood(cosines.cpu()[pool], budgets, assignment=options.assignment)
        log.info("OOD images by cluster: %s", budgets.tolist())
        return Subset(pool[chosen].numpy(), budgets.numpy())

    return on_first_rank(choose)


def clusters_and_means(
    feats: Tensor, scores: Tensor, filled: Tensor, options: Any
) -> tuple[Tensor, Tensor]:
    """k-means on unit features, and the mean score of each cluster.

    Args:
        feats: Float[N D], unit norm.
        scores, filled: Float[N] and Bool[N]; images without a score do not count in a mean, and a
            cluster of such images alone gets the mean of all.

    Returns:
        Centres Float[C D] and means Float[C]; clusters that came out empty are left out.

    Raises:
        UserError: features that are not finite.
    """
    if not bool(torch.isfinite(feats).all()):
        raise UserError("COLT: the features are not finite: training has diverged.")
    labels, centers = _k_means(feats.numpy(), options)
    count = len(centers)
    sizes = np.bincount(labels, minlength=count)
    seen = filled.numpy()
    values = scores.double().numpy()
    number = np.bincount(labels[seen], minlength=count)
    total = np.bincount(labels[seen], weights=values[seen], minlength=count)
    overall = values[seen].mean() if seen.any() else 0.0
    means = np.where(number > 0, total / np.maximum(number, 1), overall)
    kept = sizes > 0
    return torch.from_numpy(centers[kept]), torch.from_numpy(means[kept])


def _k_means(feats: np.ndarray, options: Any) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    number = min(options.num_clusters, len(feats))
    seed = options.cluster_seed
    if len(feats) > options.minibatch_above:
        method: Any = MiniBatchKMeans(number, random_state=seed, n_init=3, batch_size=4096)
    else:
        method = KMeans(number, random_state=seed, n_init=10)
    with warnings.catch_warnings():
        # Fewer distinct features than clusters: the empty ones are left out, which is said below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = method.fit_predict(feats)
    found = len(np.unique(labels))
    if found < options.num_clusters:
        log.warning("k-means found %d clusters, not %d", found, options.num_clusters)
    return labels, method.cluster_centers_.astype(np.float32)


def _over_ranks(
    model: Any, data: Any, part: str, size: int, centers: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Unit features, or their cosines to ``centers``, of all images of a part, in order.

    Every rank takes one stretch of it.

    Returns:
        Float[size D or C] and Bool[size], False where an image is damaged.
    """
    ranks, mine = world_size(), rank()
    start, stop = (size * r // ranks for r in (mine, mine + 1))
    param = next(model.parameters())
    to_centers = None if centers is None else F.normalize(centers.float(), dim=1).to(model.device).T
    rows: list[Tensor] = []
    marks: list[Tensor] = []
    for images, ok in data.stream(part, start, stop):
        z = model(images.to(device=param.device, dtype=param.dtype))["z"]
        unit = F.normalize(z.float(), dim=1)
        rows.append(unit if to_centers is None else unit @ to_centers)
        marks.append(ok)
    if not rows:  # fewer images than ranks
        width = model.embedding_dim() if to_centers is None else to_centers.shape[1]
        rows = [torch.empty(0, width, device=param.device)]
        marks = [torch.empty(0, dtype=torch.bool)]
    flags = torch.cat(marks).to(param.device).to(torch.uint8)
    return gather_no_grad(torch.cat(rows)), gather_no_grad(flags).bool()
