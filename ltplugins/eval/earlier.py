# SPDX-License-Identifier: MIT
"""What an earlier evaluation has written of the same features: its protocols stay beside new ones.

A protocol of the same name is replaced. Numbers of other weights or other test images never stand
in one file: that file is put aside under a name of its own.
"""

import dataclasses
import logging
from pathlib import Path
from typing import get_args

from ltplugins.core.errors import UserError
from ltplugins.eval.options import EvalConfig, GroupRule
from ltplugins.eval.results import ProtocolResult, Results

log = logging.getLogger(__name__)

_HEALTH = "health: "  # how notes of the features' health begin


def read_earlier(path: Path) -> Results | None:
    """The results that are there; None without.

    Raises:
        UserError: they cannot be read, and would be lost.
    """
    if not path.exists():
        return None
    try:
        return Results.read(path)
    except UserError as error:
        raise UserError(f"{error} An evaluation would replace it: move it away first.") from None


def with_rules_of(options: EvalConfig, earlier: Results | None) -> EvalConfig:
    """The options with the group rules of an earlier evaluation behind their own.

    All protocols of a file are then scored under the rules that any of them has.
    """
    known = [] if earlier is None else list(earlier.groups)
    rules: tuple[GroupRule, ...] = get_args(GroupRule)
    more = [rule for rule in rules if rule in known and rule not in options.groups]
    return dataclasses.replace(options, groups=[*options.groups, *more])


def is_of(earlier: Results, test: str, contents: str, class_counts: list[int] | None) -> bool:
    """Whether they are numbers of the same features of the same test images, in the same classes.

    Args:
        test: key of the test images' features.
        contents: hash of the test images; enough for what a fine-tuning has said of them itself.
        class_counts: Int[C], training images; None = not known.
    """
    if class_counts is not None and earlier.class_counts != class_counts:
        return False
    of_tuning = set(earlier.features) == {"test"} and not earlier.options
    return earlier.features.get("test") == test or (
        of_tuning and earlier.parts.get("test") == contents
    )


def joined(earlier: Results, new: Results) -> Results:
    """The new results with those protocols of earlier ones that they do not have."""
    kept: dict[str, ProtocolResult] = {}
    lost: list[str] = []
    for name, entry in earlier.protocols.items():
        if name in new.protocols:
            continue
        if _same_bank(entry, earlier, new):
            kept[name] = entry
        else:
            lost.append(name)
    if kept:
        log.info("kept beside, of an earlier evaluation: %s", ", ".join(kept))
    if lost:
        log.warning("left out, of an earlier evaluation on another bank: %s", ", ".join(lost))
    old_notes = [
        note
        for note in earlier.notes
        if kept or (note.startswith(_HEALTH) and new.health is None)
        if not (note.startswith(_HEALTH) and new.health is not None)
    ]
    sizes = dataclasses.replace(new.sizes, probe=new.sizes.probe or earlier.sizes.probe)
    return dataclasses.replace(
        new,
        protocols={**new.protocols, **kept},
        groups={**new.groups, **{k: v for k, v in earlier.groups.items() if k not in new.groups}},
        notes=list(dict.fromkeys([*new.notes, *old_notes])),
        features={**earlier.features, **new.features},
        parts={**earlier.parts, **new.parts},
        data={**earlier.data, **new.data},
        health=new.health or earlier.health,
        sizes=sizes,
    )


def _same_bank(entry: ProtocolResult, earlier: Results, new: Results) -> bool:
    """Whether what a protocol was fitted on is not another set in the new evaluation."""
    bank = entry.settings.get("bank") or entry.settings.get("fit_on")
    theirs, ours = earlier.parts.get(bank or ""), new.parts.get(bank or "")
    return theirs is None or ours is None or theirs == ours


def put_aside(path: Path, earlier: Results) -> Path:
    """Rename results of other weights or test images, and say so."""
    mark = earlier.features.get("test", "")[:8] or "earlier"
    aside = path.with_name(f"{path.stem}-{mark}{path.suffix}")
    path.rename(aside)
    log.warning(
        "%s was of other weights or other test images (epoch %d): it is kept as %s",
        path, earlier.epoch, aside.name,
    )  # fmt: skip
    return aside
