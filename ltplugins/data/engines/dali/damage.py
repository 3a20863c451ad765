# SPDX-License-Identifier: MIT
"""What DALI failed on: a damaged image, or one that PIL reads and DALI does not.

DALI says neither which batch nor which image it was, and its pipeline is lost with the error. It
works ahead, so that any of the batches it has may hold the image.
"""

import logging
from collections.abc import Sequence

import numpy as np

from ltplugins.data.engines.dali.feed import DaliDataset
from ltplugins.data.engines.draws import Draw
from ltplugins.data.sources.base import CorruptImage

log = logging.getLogger(__name__)


def look_into(data: DaliDataset, batches: Sequence[list[Draw]]) -> bool:
    """Find what DALI could not decode; from now on it is left out, or left to PIL.

    Images that PIL cannot read either come first: they are what is usually wrong, and PIL is quick
    to say.

    Args:
        data: of the images; what is found is written into its ``damaged`` and ``by_pil``.
        batches: draws of the batches that DALI has and has not given back.

    Returns:
        Whether anything was found.
    """
    unreadable = (_unreadable(data, draws) for draws in batches)
    return any(unreadable) or any(_foreign(data, draws) for draws in batches)


def _unreadable(data: DaliDataset, draws: list[Draw]) -> bool:
    before = len(data.damaged)
    for position in {draw.position for draw in draws} - data.damaged.keys():
        try:
            data.source.load(int(data.indices[position]))
        except CorruptImage as damage:
            data.damaged[position] = (damage.path, damage.reason)
    return len(data.damaged) > before


def _foreign(data: DaliDataset, draws: list[Draw]) -> bool:
    if data.shape is not None:
        return False  # arrays are not decoded
    before = len(data.by_pil)
    for position in {d.position for d in draws} - data.damaged.keys() - data.by_pil:
        if not _decodes(data.encoded(position)):
            log.warning("DALI cannot decode training image %d: PIL decodes it.", position)
            data.by_pil.add(position)
    return len(data.by_pil) > before


def _decodes(data: np.ndarray) -> bool:
    """Whether DALI decodes these bytes."""
    from ltplugins.data.engines.dali.graph import decode_pipeline

    try:
        decode_pipeline(data, batch_size=1, num_threads=1, device_id=None).run()
    except RuntimeError:
        return False
    return True
