# SPDX-License-Identifier: MIT
"""``ltplugins zoo info``: what an entry says of itself. Light: no torch."""

from ltplugins.catalogue.store import Store
from ltplugins.core.console import make_console
from ltplugins.stages.zoo.copies import fetched
from ltplugins.zoo.facts import read_facts, require_zoo
from ltplugins.zoo.words import network, percent, rule_of


def show_info(name: str) -> None:
    """What an entry says of itself; it is fetched where it is not here.

    Raises:
        UserError: no such entry, or it cannot be had.
    """
    folder = fetched(Store.of_environment(), [name])[name]
    config, facts = read_facts(folder)
    zoo, origin = require_zoo(facts), facts.origin
    assert origin is not None
    split = origin.split
    lines = {
        "entry": f"zoo://{name}",
        "folder": str(folder),
        "network": f"{network(config, facts)}, {facts.num_features} features",
        "method": f"{origin.method}: {zoo.summary}",
        "data": f"{facts.dataset}: {split.description}, {split.num_samples} images",
        "trained": f"{facts.epochs} epochs with {origin.host}, {zoo.shipped.hardware}",
        "weights": f"of {zoo.shipped.label}, one of {len(zoo.runs)} run(s); sha256 {facts.sha256}",
        "licence": f"{zoo.license}; images: {zoo.data_license or 'not stated'}",
        "opened by": "timm" if "architecture" in config else "load_backbone alone",
    }
    for protocol, entry in zoo.protocols.items():
        groups = entry.groups.get(rule_of(entry) or "", {})
        told = ", ".join(f"{key} {percent(value)}" for key, value in groups.items())
        lines[protocol] = f"overall {percent(entry.overall)}" + (f"; {told}" if told else "")
    console = make_console()
    for key, value in lines.items():
        console.print(f"{key:<18} {value}", highlight=False, markup=False)
