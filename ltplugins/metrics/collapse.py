# SPDX-License-Identifier: MIT
"""The record of features' health, and from where on they count as collapsed. Light: no torch."""

from dataclasses import dataclass

# From here on features count as collapsed; a network just initialised may be close to the first.
SAME_DIRECTION = -0.02  # uniformity; a mean cosine of 0.995
LOW_RANK = 0.01  # RankMe, as a share of what is possible
MOST_DEAD = 0.5


@dataclass(frozen=True)
class Health:
    """What features say of themselves.

    Attributes:
        rankme: effective rank, 1 to min(images, dim).
        uniformity: from -4 (far apart) to 0 (all the same); lower spreads more.
        dead: share of the dimensions that are the same for all images.
        alignment: mean squared distance of two views of an image, 0 to 4; lower is closer. None
            where there are no views.
        etf: see ``metrics.health.etf_deviation``, of the classes' means; None without labels.
        images, dim: N and D.
    """

    rankme: float
    uniformity: float
    dead: float
    images: int
    dim: int
    alignment: float | None = None
    etf: float | None = None

    def alarm(self) -> str | None:
        """What has collapsed, in words; None where nothing has."""
        if self.uniformity > SAME_DIRECTION:
            return (
                f"the features of all images point one way (uniformity {self.uniformity:.3f}, "
                f"collapsed above {SAME_DIRECTION})"
            )
        if self.rankme < max(2.0, LOW_RANK * min(self.images, self.dim)):
            return (
                f"the features use {self.rankme:.1f} of {min(self.images, self.dim)} possible "
                f"dimensions (RankMe)"
            )
        if self.dead > MOST_DEAD:
            return f"{self.dead:.0%} of the features' dimensions are the same for all images"
        return None
