# SPDX-License-Identifier: MIT
"""``README.md`` of an entry: Hugging Face's head and sections, made of the entry's facts alone.

It is written anew from ``config.json`` and never edited, so that no number in it is a second truth.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ltplugins.catalogue.files import WEIGHTS
from ltplugins.core.markdown import code, plain, table
from ltplugins.zoo.check import PICTURE
from ltplugins.zoo.facts import EntryFacts, ZooFacts, require_zoo
from ltplugins.zoo.preprocess import timm_transform
from ltplugins.zoo.usage import LOAD_BACKBONE, TIMM
from ltplugins.zoo.words import folds, is_of_weights, network, percent, rule_of, spread, told

FIGURE = "groups.png"
_GROUPS = ("many", "medium", "few")
_LABELS = {True: "learned from those of its training images", False: "none used", None: ""}


def card(config: Mapping[str, Any], facts: EntryFacts) -> str:
    """The page of an entry.

    Args:
        config: the whole ``config.json``.
        facts: its block ``ltplugins``.

    Raises:
        UserError: it is no entry of a zoo.
    """
    zoo = require_zoo(facts)
    parts = [
        f"---\n{_head(config, facts, zoo)}\n---\n",
        f"# {plain(zoo.name)}\n",
        _summary(config, facts, zoo),
        "## Model details\n",
        _details(config, facts, zoo),
        "## Uses\n",
        _uses(facts),
        "## Bias, risks and limitations\n",
        _limits(facts, zoo),
        "## How to get started\n",
        _start(config, zoo),
        "## Training details\n",
        _training(facts, zoo),
        "## Evaluation\n",
        _evaluation(zoo),
        "## Environmental impact\n",
        _impact(zoo),
        "## Verification\n",
        _verification(facts),
        "*Generated from `config.json` by `ltplugins zoo card`; edits are lost.*\n",
    ]
    return "\n".join(parts)


def _head(config: Mapping[str, Any], facts: EntryFacts, zoo: ZooFacts) -> str:
    assert facts.origin is not None
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=str(facts.dataset),
            dataset_name=f"{facts.dataset}, {facts.origin.split.description}",
            metric_type="accuracy",
            metric_name=f"{name}, overall, of the shipped weights",
            metric_value=round(value, 4),
        )
        for name, scores in zoo.shipped.scores.items()
        if (value := scores.get("overall")) is not None and is_of_weights(zoo, name)
    ]
    data = ModelCardData(
        model_name=zoo.name,
        license=zoo.license,
        library_name="timm" if "architecture" in config else "ltplugins",
        pipeline_tag="image-feature-extraction",
        tags=["image-feature-extraction", "long-tailed", facts.origin.method],
        eval_results=results,
    )
    return data.to_yaml().strip()


def _summary(config: Mapping[str, Any], facts: EntryFacts, zoo: ZooFacts) -> str:
    assert facts.origin is not None
    split = facts.origin.split
    return (
        f"{network(config, facts, code)} of {facts.num_features} features, trained by "
        f"{code(facts.origin.method)} ({plain(zoo.summary)}) for {facts.epochs} epochs on "
        f"{code(str(facts.dataset))}: {plain(split.description)}, {split.num_samples:,} images of "
        f"{len(split.class_names)} classes, "
        f"{max(split.class_counts):,} to {min(split.class_counts):,} a class.\n\n"
        f"![Accuracy by shot group]({FIGURE})\n"
    )


def _details(config: Mapping[str, Any], facts: EntryFacts, zoo: ZooFacts) -> str:
    seen = timm_transform(config.get("pretrained_cfg") or {}, zoo.name)
    size = facts.size or 0
    rows = {
        "method": (f"{code(facts.origin.method)}: {plain(zoo.summary)}" if facts.origin else ""),
        "labels": _LABELS[zoo.labels],
        "paper": plain(zoo.paper or "none"),
        "network": network(config, facts, code),
        "opened by": "timm" if "architecture" in config else "`ltplugins.load_backbone` alone",
        "pictures": f"RGB, {seen.size} x {seen.size} pixels, mean {_numbers(seen.mean)}, std "
        f"{_numbers(seen.std)}",
        "weights": f"`{WEIGHTS}`, {size:,} bytes, sha256 {code(str(facts.sha256))}",
        "licence of the weights": plain(zoo.license),
        "licence of the images": plain(zoo.data_license or "not stated"),
        "added": plain(zoo.added),
    }
    rows |= {"kept in": "float16, rounded before they were measured"} if zoo.half else {}
    rows |= {"also at": plain(", ".join(zoo.urls))} if zoo.urls else {}
    return table(["", ""], [[key, value] for key, value in rows.items() if value])


def _uses(facts: EntryFacts) -> str:
    return (
        "**Intended.** Features of pictures like those it was trained on "
        f"({code(str(facts.dataset))}), as a baseline for long-tailed representation "
        "learning, as a start for fine-tuning and segmentation, and for tests: it is small and its "
        "numbers say what they are.\n\n"
        "**Out of scope.** Any decision about people; pictures of another kind without measuring "
        "first; comparison with numbers of other splits, protocols or numbers of epochs.\n"
    )


def _limits(facts: EntryFacts, zoo: ZooFacts) -> str:
    assert facts.origin is not None
    split = facts.origin.split
    rarest = min(range(len(split.class_counts)), key=split.class_counts.__getitem__)
    lines = [
        f"- Its rarest class, {plain(split.class_names[rarest])}, had {split.class_counts[rarest]} "
        f"training images: what it says of rare classes is the least certain of all.",
        f"- {spread(len(zoo.runs))}",
        "- Which classes are rare was chosen, not met with; another order gives other numbers by "
        "group."
        if facts.dataset == "fashion_pack"
        else "- Groups are by training count; their classes differ in more than that.",
        "- A small network on small pictures: it is no substitute for one that was trained on "
        "millions.",
    ]
    return "\n".join(lines) + "\n"


def _start(config: Mapping[str, Any], zoo: ZooFacts) -> str:
    if "architecture" not in config:
        return LOAD_BACKBONE.format(name=zoo.name)
    return (
        f"From inside this folder, with timm alone:\n\n{TIMM}\n"
        f"With ltplugins `zoo://{zoo.name}` stands wherever a checkpoint does: `ltplugins features "
        f"zoo://{zoo.name} photos --out photos.npz`.\n"
    )


def _training(facts: EntryFacts, zoo: ZooFacts) -> str:
    rows = [
        [
            f"**{plain(run.label)}** (these weights)" if run.is_shipped else plain(run.label),
            str(run.seed),
            "" if run.class_order is None else plain(str(run.class_order)),
            "" if run.fold is None else str(run.fold),
            code(run.split.hash[:12]),
            str(run.epochs),
            "n/a" if run.hours is None else f"{run.hours:.2f}",
            plain(run.hardware),
            code(run.commit or run.ltplugins),
        ]
        for run in zoo.runs
    ]
    head = ["run", "seed", "class order", "fold", "split", "epochs", "hours", "hardware", "commit"]
    return (
        f"{table(head, rows)}\nHost: {plain(zoo.shipped.host)}. Split: "
        f"{plain(zoo.shipped.split.description)}{plain(folds(zoo))}. "
        "The whole config stands in `config.json` under `ltplugins.zoo.config`.\n"
    )


def _evaluation(zoo: ZooFacts) -> str:
    rows = []
    for name, entry in zoo.protocols.items():
        rule = rule_of(entry)
        groups = entry.groups[rule] if rule else {}
        numbers = [percent(entry.overall), percent(entry.balanced)]
        numbers += [percent(groups.get(group)) for group in _GROUPS]
        own = zoo.shipped.scores.get(name, {}).get("overall")
        own = own if is_of_weights(zoo, name) else None
        rows.append([code(name), *numbers, "n/a" if own is None else f"{100 * own:.2f}"])
    head = ["protocol", "overall", "balanced", *_GROUPS, "these weights, overall"]
    lines = [f"- {code(name)}: {plain(told(entry))}" for name, entry in zoo.protocols.items()]
    rules = {rule for entry in zoo.protocols.values() if (rule := rule_of(entry))}
    return (
        f"Accuracy in percent. {spread(len(zoo.runs))} Groups by the rule "
        f"{plain(', '.join(sorted(rules)) or 'of none')}.\n\n{table(head, rows)}\n"
        + "\n".join(lines)
        + "\n"
    )


def _impact(zoo: ZooFacts) -> str:
    known = [run.hours for run in zoo.runs if run.hours is not None]
    hardware = "; ".join(dict.fromkeys(run.hardware for run in zoo.runs))
    hours = f"{sum(known):.2f} hours of training" if known else "hours of training not known"
    return f"{hours} in all, for {len(zoo.runs)} run(s), on {plain(hardware)}.\n"


def _verification(facts: EntryFacts) -> str:
    assert facts.zoo is not None
    check = facts.zoo.check
    return (
        f"`ltplugins zoo verify {facts.zoo.name}` compares hashes and features. Without ltplugins: "
        f"the picture {PICTURE}, seen through the transform above, gives the features under "
        f"`ltplugins.zoo.check` in `config.json`: to the last bit on the machine that stored them "
        f"(torch {plain(check.torch)}, one thread, {plain(check.cpu)}), to 1e-4 on any other.\n"
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
