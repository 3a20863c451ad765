# SPDX-License-Identifier: MIT
"""``data.ood``: a second source, out of distribution, behind the training subset.

Its image j has index N + j and target -1; which of them are drawn is the sampler's business
(``id_plus_ood``).

Legend: N training images, M images of the OOD pool, S images of the training source.
"""

import numpy as np

from ltplugins.data.sources.base import Source


class JoinedSource(Source):
    """The training source and the OOD pool as one: images 0..S-1, then S..S+M-1 of target -1.

    It is in memory where both are and their images have one size; otherwise images are loaded one
    by one. Nothing is copied. Statistics and class names are the training source's.
    """

    def __init__(self, source: Source, ood: Source) -> None:
        targets = np.concatenate([source.targets, np.full(len(ood), -1)])
        super().__init__(targets, source.class_names, source.record)
        self.source, self.ood = source, ood
        images, others = source.images, ood.images
        if images is not None and others is not None and images.shape[1:3] == others.shape[1:3]:
            # It has what an engine asks of an array: shape, ndim, and images by their positions.
            self.images = _StackedImages(images, others)  # type: ignore[assignment]

    def load(self, i: int) -> np.ndarray:
        """Load image i, uint8 [H, W, 3]; CorruptImage where its file cannot be decoded."""
        first = len(self.source)
        return self.source.load(i) if i < first else self.ood.load(i - first)


class _StackedImages:
    """Two arrays of images of one size behind each other, grey turned to colour where one is."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self.parts = (first, second)
        self.ndim = max(first.ndim, second.ndim)
        shape = (len(first) + len(second), *first.shape[1:3])
        self.shape = shape if self.ndim == 3 else (*shape, 3)

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        """Gather the images at Int[B], uint8 [B, H, W(, 3)]."""
        first, second = self.parts
        positions = np.asarray(positions)
        is_second = positions >= len(first)
        shape = (len(positions), *first.shape[1:3], *([3] if self.ndim == 4 else []))
        images = np.empty(shape, dtype=np.uint8)
        images[~is_second] = self._like(first[positions[~is_second]])
        images[is_second] = self._like(second[positions[is_second] - len(first)])
        return images

    def _like(self, images: np.ndarray) -> np.ndarray:
        return images[..., None] if images.ndim < self.ndim else images
