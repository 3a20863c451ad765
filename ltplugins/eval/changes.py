# SPDX-License-Identifier: MIT
"""Whether training data are still those of a checkpoint, and in what they differ."""

from dataclasses import dataclass

from ltplugins.core.errors import UserError
from ltplugins.data.imbalance import Split
from ltplugins.data.sources.base import Source
from ltplugins.runs.checkpoint import TrainedRun
from ltplugins.runs.facts import Contents, SplitFacts


class DataChanged(UserError):
    """Data that are not those that a run was trained on."""


@dataclass(frozen=True)
class Change:
    """What differs, in words; ``is_of_classes``: their names, numbers or order."""

    text: str
    is_of_classes: bool = False


def what_changed(facts: SplitFacts, source: Source, split: Split) -> Change | None:
    """Compare a source and its split with those of a training, from the coarse to the fine.

    Files' contents are compared where the checkpoint knows them. A training without labels says
    nothing of classes: there the number of images and their contents count.
    """
    then, now = facts.num_samples, len(split.indices)
    is_labelled = any(facts.class_counts)
    names = [str(name) for name in source.class_names]
    if is_labelled and names != facts.class_names:
        return Change(_names(facts.class_names, names), is_of_classes=True)
    if then != now:
        return Change(f"{then:,} images then, {now:,} now")
    counts = [int(count) for count in split.class_counts]
    if is_labelled and counts != facts.class_counts:
        c = next(c for c, n in enumerate(counts) if n != facts.class_counts[c])
        return Change(f"class '{names[c]}' had {facts.class_counts[c]:,} images, has {counts[c]:,}")
    if facts.hash != split.hash:
        return Change(f"the split now has hash {split.hash[:12]}, then it had {facts.hash[:12]}")
    if facts.contents is None:
        return None
    found = Contents.of(source, split)
    if is_labelled and found.labels != facts.contents.labels:
        return Change("some images have other labels")
    if found.pictures != facts.contents.pictures:
        return Change("some pictures are others, or stand in another order")
    return None


def require_same(run: TrainedRun, source: Source, split: Split) -> None:
    """Refuse training data that are not those of the run's checkpoint.

    Raises:
        DataChanged: they differ, and in what.
    """
    changed = what_changed(run.origin.split, source, split) if run.origin else None
    if changed is None:
        return
    text = f"{run.path}: the training data are not those of its training: {changed.text}."
    if changed.is_of_classes:
        raise DataChanged(
            f"{text} Give the class folders the names and the order that they had, or set "
            f"data.train_path to the data of the training."
        )
    raise DataChanged(
        f"{text} Evaluate with the data of the training. To compare with these images instead, "
        f"give data.train_path on the command line; the groups stay those of the training."
    )


def _names(then: list[str], now: list[str]) -> str:
    gone, new = [n for n in then if n not in now], [n for n in now if n not in then]
    parts = [f"{len(then)} classes then, {len(now)} now"] if len(then) != len(now) else []
    parts += [f"class {_some(gone)} is gone"] if gone else []
    parts += [f"class {_some(new)} is new"] if new else []
    if not parts:
        c = next(c for c, name in enumerate(now) if name != then[c])
        parts = [f"class {c} was '{then[c]}', is '{now[c]}'"]
    return ", ".join(parts)


def _some(names: list[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:3])
    return listed + (f" and {len(names) - 3} more" if len(names) > 3 else "")
