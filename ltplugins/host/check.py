# SPDX-License-Identifier: MIT
"""What the host refuses of a config, in our words and before it builds anything."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from ltplugins.core.errors import UserError, unknown
from ltplugins.host.facts import configured_bases, facts_of
from ltplugins.host.head import check_head


def check_config(cfg: DictConfig, base: str, drop_last: bool) -> None:
    """Refuse a method, a projector or a size of batches that the host does not have or take.

    Args:
        cfg: a host's config.
        base: the host's method that ``cfg.method`` is built on, or the method itself.
        drop_last: whether the last, short batch of an epoch is left out.

    Raises:
        UserError: with the key and the way out.
    """
    from ltplugins.host import HOST, METHODS

    check_method(cfg.method, METHODS)
    check_head(cfg, base)
    # Its code asserts batches of one size.
    if HOST.name == "solo" and not drop_last and facts_of(base).whole_batches:
        raise UserError(
            f"data.drop_last: expected true for solo-learn's {base}, which takes batches of one "
            f"size alone; got false. Set it to true."
        )


def check_method(method: str, methods: Mapping[str, Any]) -> None:
    """Refuse a method that the host does not have.

    Args:
        method: its name.
        methods: the host's ``METHODS``.

    Raises:
        UserError: an unknown name, or one over a base that only solo-learn has.
    """
    if method in methods:
        return
    ends = [base for base in configured_bases() if f"_{method}".endswith(f"_{base}")]
    base = max(ends, key=len, default="")
    if base and base not in methods:
        raise UserError(
            f"method: {method} needs solo-learn as host, which has {base}; the host here is the "
            f"stand-in. Install solo-learn (README, 'The solo-learn way'), or take another base."
        )
    raise unknown("method", method, [m for m in methods if m not in ("base", "linear")])
