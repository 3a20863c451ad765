# SPDX-License-Identifier: MIT
"""What cards, pages and the command line say alike: a number, its spread, its groups, a method."""

from collections.abc import Callable, Mapping
from typing import Any

from ltplugins.eval.results import Stat
from ltplugins.methods.registry import METHODS, WRAPPERS, split_name
from ltplugins.zoo.facts import EntryFacts, EntryProtocol, ZooFacts

RULE = "tercile"  # of the groups that tables show; of entries without it their first


def rule_of(protocol: EntryProtocol) -> str | None:
    """The rule of the groups that is shown; None where there are no groups."""
    return RULE if RULE in protocol.groups else next(iter(protocol.groups), None)


def percent(stat: Stat | None) -> str:
    """Mean and spread in percent: ``63.4 ± 1.2``, of one run ``63.4``, or ``n/a``."""
    if stat is None or stat.mean is None:
        return "n/a"
    return f"{100 * stat.mean:.1f}" + ("" if stat.std is None else f" ± {100 * stat.std:.1f}")


def spread(runs: int | str) -> str:
    """What the numbers are over, in a sentence: so many runs, or those of a column."""
    if runs == 1:
        return "One run: how far another seed, class order or fold would be off is not known."
    return f"Mean ± sample standard deviation over {runs} runs; each run counts by its own mean."


def folds(zoo: ZooFacts) -> str:
    """Of a spatial split, how it was cut."""
    data = zoo.config.get("data") or {}
    if zoo.shipped.fold is None:
        return ""
    return (
        f", of the training part of fold {zoo.shipped.fold} of {data.get('folds')} (tiles of "
        f"{data.get('tile')} pixels; the parts share no pixel)"
    )


def is_of_weights(zoo: ZooFacts, protocol: str) -> bool:
    """Whether a protocol's number can be had of the entry: one of its run's classifier cannot."""
    known = zoo.protocols.get(protocol)
    return known is None or known.kind != "classifier"


def told(protocol: EntryProtocol) -> str:
    """What a protocol is, and whether an entry, which is a backbone alone, lacks what it is of."""
    gone = "; the entry does not hold that classifier" * (protocol.kind == "classifier")
    return f"{protocol.description}{gone}"


def summary_of(method: str) -> tuple[str, str | None]:
    """What a method does about the tail, in a line, and the address of its paper."""
    if method in METHODS:
        return METHODS[method].summary, METHODS[method].paper
    wrappers, base = split_name(method)
    if not wrappers:
        return "a baseline that knows nothing of the tail", None
    words = "; ".join(WRAPPERS[name].summary for name in wrappers)
    return f"over {base}: {words}", WRAPPERS[wrappers[0]].paper


def network(config: Mapping[str, Any], facts: EntryFacts, mark: Callable[[str], str] = str) -> str:
    """The name that it is built by, with what is unusual about it; ``mark`` sets the name."""
    name = config.get("architecture") or facts.torchvision or facts.label
    small = " with the small stem" if facts.small_stem else ""
    return f"{mark(str(name))}{small}"
