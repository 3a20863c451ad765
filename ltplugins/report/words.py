# SPDX-License-Identifier: MIT
"""The words of the report: captions that say what to look at, and the small print."""

from collections.abc import Sequence

from ltplugins import __version__
from ltplugins.metrics.groups import RULES
from ltplugins.report.figures import MAX_CURVES, NAMED_CLASSES, curve_names
from ltplugins.report.rows import progress_mark
from ltplugins.report.scatter import MAX_PANELS
from ltplugins.report.style import CLASSES
from ltplugins.report.sureness import MAX_PANELS as SURE_PANELS
from ltplugins.report.sureness import sure_rows
from ltplugins.report.table import RunResult, Section, spread_note

GROUPS_CAPTION = (
    "Compare the few-shot bars first: a method for long tails should raise them without lowering "
    "the many-shot ones. Error bars are the ± of the table; where bars overlap within them, the "
    "data do not tell the rows apart."
)
_RANK = (
    "Classes from the largest to the smallest in training. A method that serves the tail lies "
    "higher on the right. Single classes also differ in how hard they are, whatever their count."
)
_CURVES = (
    "Losses of different methods are different quantities: compare their course, not their level."
)
CONFUSION_CAPTION = (
    "Each line adds up to 100: of the test images of rare classes, how many are taken for a rare "
    "class (the right one or another), and how many are drawn to the common ones, at the left. On "
    "the diagonal stand hits and mistakes within a group alike."
)
_SURENESS = (
    "On the diagonal a classifier is right as often as it says; below it, it is too sure. After "
    "the names of the groups: their expected calibration error. A temperature, fitted on held-out "
    "training images, divides the logits and changes no prediction. Of each row its first run."
)


def rank_caption(rows: dict[str, list[RunResult]]) -> str:
    """Say how to read accuracy against class rank."""
    members = next(iter(rows.values()))
    if len(members[0].class_counts) > NAMED_CLASSES:
        return f"{_RANK} Dots are classes, the line is a moving average over neighbouring ranks."
    if any(len(runs) > 1 for runs in rows.values()):
        return f"{_RANK} The band is ± one standard deviation over runs."
    return _RANK


def curves_caption(rows: dict[str, list[RunResult]]) -> str:
    """Say how to read the training curves, and how many are not shown."""
    more = len(curve_names(rows)) - MAX_CURVES
    return _CURVES + (f" {more} more were logged." if more > 0 else "")


def sureness_caption(rows: dict[str, list[RunResult]]) -> str:
    """Say how to read the reliability diagrams, and how many are not shown."""
    more = len(sure_rows(rows)) - SURE_PANELS
    return _SURENESS + (f" {more} more are not shown." if more > 0 else "")


def counts_caption(runs: Sequence[RunResult]) -> str:
    """Say how long the tail is."""
    counts = sorted(runs[0].class_counts, reverse=True)
    ratio = f"{counts[0] / counts[-1]:,.0f} times" if counts[-1] else "infinitely many times"
    text = (
        f"{sum(counts):,} training images in {len(counts)} classes; the largest class has {ratio} "
        "the images of the smallest."
    )
    if len({tuple(run.class_counts) for run in runs}) > 1:
        text += f" Shown for {runs[0].name}; other runs give other classes these counts."
    return text


def scatter_caption(runs: Sequence[RunResult]) -> str:
    """Say how the map was made and what it can and cannot show."""
    shown = [run for run in runs if run.embedding is not None]
    methods = sorted({run.embedding_method for run in shown} - {""})
    text = f"Test images in two dimensions{' by ' + ', '.join(methods) if methods else ''}. "
    bold = ", bold names" if len(runs[0].class_counts) <= len(CLASSES) else ""
    text += (
        f"Look at whether the triangles (few-shot classes{bold}) form groups of their own or "
        "dissolve into others. Distances between far groups mean nothing."
    )
    more = len(shown) - MAX_PANELS
    return text + (f" {more} more runs are not shown." if more > 0 else "")


def lead(runs: Sequence[RunResult], sections: Sequence[Section]) -> str:
    """Say in one sentence what is compared."""
    num_rows = len(sections[0].rows)
    sizes = runs[0].results.sizes
    plural = "s" if len(runs) > 1 else ""
    what = f"{len(runs)} run{plural}" + (f" in {num_rows} rows" if num_rows < len(runs) else "")
    return (
        f"{what}, {len(runs[0].class_counts)} classes, {sizes.train:,} training images, "
        f"scored on {sizes.test:,} test images."
    )


def reading(sections: Sequence[Section]) -> str:
    """Say how to read the table: units, ±, bold, differences."""
    text = (
        "Top-1 accuracy in %; group std in percentage points, lower is more even. "
        f"{spread_note(sections)} A number is bold only where it leads every other row by more "
        "than the ± of either and by more than the test set's own error (1.96 standard errors of "
        "a difference on so many images)."
    )
    if any(section.differences for section in sections):
        text += (
            " Lines in italics are differences, taken pair by pair between runs on the same split "
            "and seed, then averaged: what all runs share cancels out."
        )
    return text


def small_print(runs: Sequence[RunResult], sections: Sequence[Section]) -> list[tuple[str, str]]:
    """Return (name, text) pairs that say what the numbers are; what differs is listed by run."""
    rule = sections[0].rule
    rows = [(section.protocol, section.description) for section in sections]
    seeds = {name: e.seeds for name, e in runs[0].results.protocols.items() if e.seeds}
    shared = {tuple(value) for value in seeds.values()}
    if len(shared) == 1:
        rows.append(("probe seeds", ", ".join(map(str, shared.pop()))))
    rows.append(("groups", f"{rule}: {RULES.get(rule, rule)}; always by training images"))
    rows.append(("group accuracy", "over the test images of the group's classes"))
    rows.append(("group std", "population standard deviation of many, medium, few"))
    for key in dict.fromkeys(key for run in runs for key in run.info):
        names: dict[str, list[str]] = {}
        for run in runs:
            names.setdefault(str(run.info.get(key, "unknown")), []).append(run.name)
        if len(names) == 1:
            rows.append((key, next(iter(names))))
        else:
            rows.append((key, "; ".join(f"{v} ({', '.join(n)})" for v, n in names.items())))
    rows.append(("report by", f"ltplugins {__version__}"))
    return rows


def notes(runs: Sequence[RunResult]) -> list[str]:
    """Return the runs' own remarks, each once: what is unfinished, n/a, or left out, and why."""
    unfinished = [
        f"{run.name} is not trained to its end: {progress_mark(run.progress)}."
        for run in runs
        if progress_mark(run.progress)
    ]
    failed = [
        f"{protocol} of {run.name} is left out: {reason}"
        for run in runs
        for protocol, reason in run.results.failed.items()
    ]
    own = dict.fromkeys(note for run in runs for note in run.results.notes)
    return [*unfinished, *own, *failed]
