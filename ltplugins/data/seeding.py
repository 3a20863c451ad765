# SPDX-License-Identifier: MIT
"""Seeds derived from several numbers, so that no random stream depends on who draws first."""

_MASK = (1 << 64) - 1


def mix_seed(*parts: int) -> int:
    """A 63-bit seed that changes with every part and with their order.

    SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) applied part by part; cheap enough for a call per
    image, unlike ``numpy.random.SeedSequence``.
    """
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state ^ (int(part) & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1
