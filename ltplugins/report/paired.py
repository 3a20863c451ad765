# SPDX-License-Identifier: MIT
"""What paired differences show: their mean, its interval, and how often chance does as much."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Verdict = Literal["holds", "does not", "unknown"]
LEAST_PAIRS = 6  # of fewer no sign-flip test can show p < 0.05
_LEVEL = 0.95


@dataclass(frozen=True)
class Paired:
    """Differences of two arms, pair by pair.

    Attributes:
        n: pairs.
        effect: the mean difference; None without a pair.
        low, high: 95% interval of the mean by Student's t; None with fewer than two pairs.
        p: of the two-sided sign-flip test of the mean; None without a pair.
    """

    n: int
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    def verdict(self, direction: Literal["higher", "lower"] = "higher") -> Verdict:
        """Whether the mean is on the claimed side of 0; unknown where that cannot be told.

        It cannot with fewer than six pairs, or where the interval contains 0.
        """
        if self.n < LEAST_PAIRS or self.low is None or self.high is None:
            return "unknown"
        if self.low <= 0 <= self.high:
            return "unknown"
        return "holds" if (self.low > 0) == (direction == "higher") else "does not"


def paired(differences: Sequence[float]) -> Paired:
    """Test differences against 0.

    The interval supposes that they are about normal; the test supposes only that under no effect
    each could as well have had the other sign. It is exact: all 2^n signs are tried, so that the
    least p of n pairs is 2^(1 - n).

    >>> found = paired([0.01, 0.02, 0.03, 0.02, 0.01, 0.03])
    >>> round(found.low, 4), round(found.high, 4), found.p, found.verdict()
    (0.0106, 0.0294, 0.03125, 'holds')
    """
    values = np.asarray(differences, dtype=float)
    n = len(values)
    if n == 0:
        return Paired(0)
    effect, p = float(values.mean()), _sign_flip(values)
    if n == 1:
        return Paired(n, effect, p=p)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    reach = float(stats.t.ppf((1 + _LEVEL) / 2, n - 1)) * error
    return Paired(n, effect, effect - reach, effect + reach, p)


def _sign_flip(values: np.ndarray) -> float:
    """The share of all signs that give a mean at least as far from 0."""
    if len(values) == 1:
        return 1.0
    found = stats.permutation_test(
        (values,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(values),
        batch=1 << 12,
    )
    return float(found.pvalue)
