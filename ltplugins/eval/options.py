# SPDX-License-Identifier: MIT
"""The ``eval`` section: which protocols an evaluation runs, and with what."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from ltplugins.core.ranges import Above, AtLeast, Between, Length, Seed
from ltplugins.core.schema import Section
from ltplugins.eval.linear import C_GRID
from ltplugins.eval.logistic import Engine

Bank = Literal["probe", "train"]
GroupRule = Literal["threshold", "tercile"]
Shots = Annotated[int, AtLeast(1)] | Annotated[float, Between(0, 1)] | Literal["full"]
# Of the protocols that are asked for by no number; data with fewer images get fewer.
SHOTS, NEIGHBOURS = 100, 20


@dataclass
class KnnConfig(Section):
    """``k`` neighbours vote with exp(cosine / temperature); ``bank`` says among which images.

    Without ``k`` they are 20, or all images of a smaller bank.
    """

    k: Annotated[int, AtLeast(1)] | None = None
    temperature: Annotated[float, Above(0)] = 0.07
    bank: Bank = "probe"


@dataclass
class LinearConfig(Section):
    """One probe for each entry of ``shots``: images per class, a share of them, or "full".

    Draws come from ``fit_on``. Without ``shots`` there is one probe: 100 images a class of the
    probe set, or as many as its smallest class has; all images of the training set. See
    `linear_probe` for the rest.
    """

    shots: Annotated[list[Shots], Length(1, math.inf)] | None = None
    fit_on: Bank = "probe"
    grid: Annotated[list[Annotated[float, Above(0)]], Length(1, math.inf)] = field(
        default_factory=lambda: list(C_GRID)
    )
    val_fraction: Annotated[float, Between(0, 1)] = 0.2
    max_iter: Annotated[int, AtLeast(1)] = 500
    engine: Engine = "sklearn"


@dataclass
class HealthConfig(Section):
    """How many test images tell the features' health; ``views`` are those for the alignment."""

    images: Annotated[int, AtLeast(2)] = 2048
    views: Annotated[int, AtLeast(0)] = 512  # each in two random views; 0 = no alignment


@dataclass
class EvalConfig(Section):
    """The ``eval`` section. ``knn: null`` or ``linear: null`` leaves a protocol out,
    ``health: null`` the measures of the features.

    ``linear_lt`` are probes of the long-tailed training set as it is, one for each tau of the logit
    adjustment, 0 for none; they take grid, val_fraction and max_iter of ``linear``.
    ``classifier`` concerns runs of methods with a classifier of their own; others have no such row.
    ``pictures`` are test images of which small copies are kept beside the results, for pages; 0 =
    none of any image. ``groups`` lists the rules for many/medium/few; reports show the first.
    ``seeds`` are those of the probes (draw and validation split), not the run's. ``remarks`` are
    sentences for the notes of the results, such as what a preset does otherwise than a paper.
    """

    knn: KnnConfig | None = field(default_factory=KnnConfig)
    linear: LinearConfig | None = field(default_factory=LinearConfig)
    linear_lt: Annotated[list[Annotated[float, AtLeast(0)]], Length(1, math.inf)] | None = None
    classifier: bool = True
    health: HealthConfig | None = field(default_factory=HealthConfig)
    pictures: Annotated[int, AtLeast(0)] = 400
    groups: list[GroupRule] = field(default_factory=lambda: ["tercile"])
    seeds: list[Seed] = field(default_factory=lambda: [0, 1, 2])
    remarks: list[str] = field(default_factory=list)

    def banks(self) -> set[Bank]:
        """What images are compared with."""
        found: set[Bank] = {self.knn.bank} if self.knn is not None else set()
        found |= {self.linear.fit_on} if self.linear is not None else set()
        return found | ({"train"} if self.linear_lt is not None else set())
