# SPDX-License-Identifier: MIT
"""Two-dimensional maps of features, for looking at, not for measuring."""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ltplugins.core.errors import UserError, install, unknown

Method = Literal["pca", "tsne", "umap"]
MAX_POINTS = 2000


def embed_2d(feats: Tensor, seed: int = 0, method: Method = "pca") -> Tensor:
    """Map L2-normalised features to the plane.

    Args:
        feats: Float[N D]; at most 2,000 for t-SNE and UMAP (`pick_points` chooses them).
        seed: of the method's own randomness.
        method: ``pca`` (instant, linear), ``tsne`` (seconds), ``umap`` (extra ``umap``).

    Returns:
        Float[N 2] on the CPU.

    Raises:
        UserError: unknown method, fewer than 3 or too many points, or UMAP not installed.
    """
    if method not in get_args(Method):
        raise unknown("embedding method", method, get_args(Method))
    num = feats.shape[0]
    if num < 3 or (method != "pca" and num > MAX_POINTS):
        raise UserError(
            f"embedding with {method} takes 3 to {MAX_POINTS:,} points, got {num:,}; "
            "choose some with pick_points."
        )
    from sklearn.decomposition import PCA  # slow to import, as all of scikit-learn
    from sklearn.manifold import TSNE

    points = torch.nn.functional.normalize(feats.detach().float().cpu(), dim=1).numpy()
    if method == "pca":
        plane = PCA(2, svd_solver="full").fit_transform(points)
    elif method == "tsne":
        size = min(50, *points.shape)
        reduced = PCA(size, random_state=seed).fit_transform(points)
        perplexity = min(30.0, (num - 1) / 3)
        plane = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(reduced)
    else:
        plane = _umap(points, seed)
    return torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32))


def _umap(points: np.ndarray, seed: int) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError:
        raise UserError(
            f"UMAP is not installed. Run {install('umap')} in the checkout of ltplugins, or use "
            f"method 'tsne'."
        ) from None
    return UMAP(random_state=seed, n_neighbors=min(15, len(points) - 1)).fit_transform(points)
