# SPDX-License-Identifier: MIT
"""Seeds derived from several numbers, so that no random stream depends on who draws first.

Legend: R rows.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def mix_seed(*parts: int) -> int:
    """A 63-bit seed that changes with every part and with their order.

    SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) applied part by part; cheap enough for a call per
    image, unlike ``numpy.random.SeedSequence``.
    """
    state = _GAMMA
    for part in parts:
        state = (state ^ (int(part) & _MASK)) + _GAMMA & _MASK
        state = (state ^ (state >> 30)) * _MIX[0] & _MASK
        state = (state ^ (state >> 27)) * _MIX[1] & _MASK
        state ^= state >> 31
    return state >> 1


def mix_seeds(*parts: int | np.ndarray) -> np.ndarray:
    """:func:`mix_seed` of arrays, element by element: uint64, of the parts' common shape."""
    # Arrays, not scalars, all the way: numpy warns of a scalar's overflow, which is meant here.
    state = np.full(np.broadcast_shapes(*(np.shape(p) for p in parts)) or (1,), _GAMMA, np.uint64)
    for part in parts:
        state = (state ^ np.asarray(part).astype(np.uint64)) + np.uint64(_GAMMA)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX[0])
        state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX[1])
        state ^= state >> np.uint64(31)
    return state >> np.uint64(1)


class RowStreams:
    """One stream of uniform numbers a row: row r's depend on its seed and on what was drawn before.

    A ``torch.Generator`` a row would do the same, a hundred times slower.

    Args:
        seeds: uint64 [R].
    """

    def __init__(self, seeds: np.ndarray) -> None:
        self.seeds = np.asarray(seeds)
        self.drawn = 0

    def rand(self, rows: int, before: Sequence[int] = (), after: Sequence[int] = ()) -> Tensor:
        """Float64[*before R *after] in [0, 1)."""
        assert rows == len(self.seeds)
        shape = (*before, *after)
        count = int(np.prod(shape))
        places = np.arange(self.drawn, self.drawn + count)[:, None]
        self.drawn += count
        # The seed has 63 bits; its upper 53 are what a double holds.
        values = (mix_seeds(self.seeds, places) >> np.uint64(10)).astype(np.float64) * 2.0**-53
        return torch.from_numpy(values.reshape(*shape, rows)).movedim(-1, len(before))
