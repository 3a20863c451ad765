# SPDX-License-Identifier: MIT
"""The stand-in host: what solo-learn 1.0.6's contract needs, for where solo-learn is missing.

Config keys, attribute names, metric names and ``state_dict`` keys are solo-learn's. It is not a
second solo-learn: no feature goes in that a method of this project does not need.
"""

from ltplugins.host.builtin.barlow_twins import BarlowTwins, BarlowTwinsKwargs
from ltplugins.host.builtin.base import BaseMethod
from ltplugins.host.builtin.byol import BYOL, BYOLKwargs
from ltplugins.host.builtin.mocov2plus import MoCoV2Plus, MoCoV2PlusKwargs
from ltplugins.host.builtin.momentum import BaseMomentumMethod
from ltplugins.host.builtin.simclr import SimCLR, SimCLRKwargs
from ltplugins.host.builtin.simsiam import SimSiam, SimSiamKwargs
from ltplugins.host.builtin.supcon import SupCon, SupConKwargs
from ltplugins.host.builtin.vicreg import VICReg, VICRegKwargs

METHODS: dict[str, type[BaseMethod]] = {
    "barlow_twins": BarlowTwins,
    "byol": BYOL,
    "mocov2plus": MoCoV2Plus,
    "simclr": SimCLR,
    "simsiam": SimSiam,
    "supcon": SupCon,
    "vicreg": VICReg,
}

# The valid keys of ``method_kwargs`` and their types, by method name.
METHOD_KWARGS: dict[str, type] = {
    "barlow_twins": BarlowTwinsKwargs,
    "byol": BYOLKwargs,
    "mocov2plus": MoCoV2PlusKwargs,
    "simclr": SimCLRKwargs,
    "simsiam": SimSiamKwargs,
    "supcon": SupConKwargs,
    "vicreg": VICRegKwargs,
}

__all__ = ["METHODS", "METHOD_KWARGS", "BaseMethod", "BaseMomentumMethod"]
