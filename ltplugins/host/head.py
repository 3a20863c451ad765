# SPDX-License-Identifier: MIT
"""``method_kwargs.proj_head``: the projector of the long-tail papers in place of solo-learn's.

``solo`` is the host's own: linear (``proj_hidden_dim``), ReLU, linear. ``official`` is what the
published code of GH, COLT, BCL, TS and SDCLR trains: hidden layers as wide as the backbone's
features, a BatchNorm behind every linear layer, the last one included, and no bias in the last.
``proj_hidden_dim`` has no part in it. SDCLR's own code has three linear layers, the others' two
(GH's and BCL's SDCLR among them): ``official_head_layers`` of the method's class.
"""

from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.core.schema import check
from ltplugins.host.facts import BASES

Head = Literal["solo", "official"]


class OfficialHead(nn.Sequential):
    """Linear, BatchNorm, ReLU for each hidden layer; linear without bias, BatchNorm.

    Args:
        width: of the features and of the hidden layers.
        out: width of z.
        layers: linear ones, 2 or 3; beyond the first they have no bias.
    """

    def __init__(self, width: int, out: int, layers: int = 2) -> None:
        parts: list[nn.Module] = []
        for layer in range(layers - 1):
            linear = nn.Linear(width, width, bias=layer == 0)
            parts += [linear, nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        super().__init__(*parts, nn.Linear(width, out, bias=False), nn.BatchNorm1d(out))


def check_head(cfg: DictConfig, base: str) -> None:
    """Refuse a ``proj_head`` that is none, or one for a base with another projector.

    Under solo-learn nobody else reads the key.

    Args:
        base: the name of the host's method, or of one of ours that has the option.

    Raises:
        UserError: with the key, what was expected and what came.
    """
    value = OmegaConf.select(cfg, "method_kwargs.proj_head")
    key = "method_kwargs.proj_head"
    if value is None or check(value, Head, key) == "solo" or base not in BASES:
        return
    if not BASES[base].plain_head:
        plain = ", ".join(name for name, facts in BASES.items() if facts.plain_head)
        raise UserError(
            f"{key}: expected solo for {base}, which has a projector of its own; got {value!r}. "
            f"Leave it out, or take a base whose projector it replaces: {plain}."
        )


def apply_head(model: Any, cfg: DictConfig, base: str) -> None:
    """Give the model the projector that ``method_kwargs.proj_head`` asks for, if it has it not yet.

    Call it after the base is built and before anything copies or counts its parameters.

    Raises:
        UserError: see :func:`check_head`.
    """
    check_head(cfg, base)
    kwargs = cfg.get("method_kwargs") or {}
    if kwargs.get("proj_head") != "official" or isinstance(model.projector, OfficialHead):
        return
    layers = getattr(model, "official_head_layers", 2)
    model.projector = OfficialHead(model.features_dim, int(kwargs["proj_output_dim"]), layers)
