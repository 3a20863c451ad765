# SPDX-License-Identifier: MIT
"""Temperature schedule: the softmax temperature of a contrastive loss as a cosine of the epoch.

Paper: Kukleva et al., "Temperature Schedules for Self-Supervised Contrastive Methods on Long-Tail
Data", ICLR 2023, https://arxiv.org/abs/2303.13664
Official code: https://github.com/Annusha/temperature_schedules at 3ac1db6

A high temperature spreads groups of images apart, a low one single images: head classes profit from
the first, tail classes from the second. No known difference from the official formula.
"""

import math


def cosine_temperature(
    epoch: float, *, temperature_min: float, temperature_max: float, t_max: float
) -> float:
    """``tau(e) = tau- + (tau+ - tau-) (1 + cos(pi e / T)) / 2``.

    Highest at e = 0, lowest at e = T, highest again at e = 2 T: T is half a period.

    >>> schedule = {"temperature_min": 0.1, "temperature_max": 1.0, "t_max": 200}
    >>> [round(cosine_temperature(epoch, **schedule), 2) for epoch in (0, 100, 200, 400)]
    [1.0, 0.55, 0.1, 1.0]

    Args:
        epoch: e, 1 in the first epoch of the official code; fractions are positions within one.
        temperature_min, temperature_max: tau- and tau+.
        t_max: T, in epochs.
    """
    share = (1 + math.cos(math.pi * epoch / t_max)) / 2
    return temperature_min + (temperature_max - temperature_min) * share
