# SPDX-License-Identifier: MIT
"""The words of the report: captions that say what to look at, and the small print."""

from collections.abc import Mapping, Sequence

from ltplugins import __version__
from ltplugins.metrics.groups import RULES
from ltplugins.report.cells import Section
from ltplugins.report.classes import MAX_PANELS as CLASS_PANELS
from ltplugins.report.classes import SMOOTHED
from ltplugins.report.compare import Answer, in_words, sides
from ltplugins.report.curves import MAX_CURVES, curve_names, left_out
from ltplugins.report.evaluated import RunResult
from ltplugins.report.rows import progress_mark
from ltplugins.report.scatter import MAX_PANELS
from ltplugins.report.style import CLASSES
from ltplugins.report.sureness import MAX_PANELS as SURE_PANELS
from ltplugins.report.sureness import sure_rows
from ltplugins.report.table import spread_note

FOREST_CAPTION = (
    "Each diamond is a row's mean difference to the baseline, its line the 95 % interval of that "
    "mean, each small dot one pair of runs on the same split and seed. Right of 0 the row is "
    "ahead; where a line crosses 0, the pairs do not tell. A triangle at the edge: it goes on."
)
GROUPS_CAPTION = (
    "How high each row stands, the best on few-shot classes first. A method for long tails should "
    "move the triangles right and leave the squares where they are. How far the marks of a row lie "
    "apart is mostly how hard its classes are: compare rows in the pictures of differences."
)
COST_CAPTION = (
    "Further up is better, further left is cheaper. Time is of training alone, on whatever "
    "machine it ran, beside whatever else ran there: a rough number."
)
TAKEN_CAPTION = (
    "Each line adds up to 100: of a class's test images, how many are taken for which class, by "
    "nearest neighbours as in the kNN protocol. Classes stand by their training images, given in "
    "brackets: what lies left of the diagonal is drawn to more frequent classes. Of each row its "
    "first run."
)
_RANK = (
    "Classes from the most to the fewest training images, on a log axis. A method that serves the "
    "tail lies above the baseline on the right. Single classes also differ in how hard they are, "
    "whatever their count."
)
_CURVES = (
    "Losses of different methods are different quantities: compare their course, not their level."
)
KNN_CAPTION = (
    "The vote of nearest training images on the validation images, epoch by epoch, as the training "
    "logged it: its classes are as rare in the bank as in the training set, so that it is lower on "
    "the tail than the protocols above."
)
CONFUSION_CAPTION = (
    "Each line adds up to 100: of the test images of rare classes, how many are taken for a rare "
    "class (the right one or another), and how many are drawn to the common ones, at the left. On "
    "the diagonal stand hits and mistakes within a group alike. Of each row its first run; of "
    "features, by the protocol that the page begins with."
)
_SURENESS = (
    "On the diagonal a classifier is right as often as it says; below it, it is too sure. After "
    "the names of the groups: their expected calibration error. A temperature, fitted on held-out "
    "training images, divides the logits and changes no prediction. Of each row its first run."
)


def by_count_caption(rows: dict[str, list[RunResult]], protocol: str) -> str:
    """Say how to read accuracy against training images, and what is left out."""
    members = next(iter(rows.values()))
    text = f"By {protocol}. {_RANK}"
    if len(members[0].class_counts) > SMOOTHED:
        text += " The line is a moving average over neighbouring ranks."
    if any(len(runs) > 1 for runs in rows.values()):
        text += " The line is the mean over runs, dots are the classes of single runs."
    more = len(rows) - 1 - CLASS_PANELS
    return text + (f" {more} more rows are not shown." if more > 0 else "")


def forest_finding(answers: Sequence[Answer]) -> str:
    """Say what a forest plot shows."""
    return " ".join(f"{a.measure}: {sides(a) if a.pairs > 1 else in_words(a)}" for a in answers)


def level_finding(section: Section) -> str:
    """Say who stands highest and lowest on the few, or overall."""
    for measure in ("few", "overall"):
        known = [row for row in section.rows if row.cells[measure].mean is not None]
        if known:
            top = max(known, key=lambda row: row.cells[measure].mean or 0.0)
            low = min(known, key=lambda row: row.cells[measure].mean or 0.0)
            text = f"{measure} by {section.protocol}: {top.name} {top.cells[measure].text()} %"
            if top is low:
                return f"{text}."
            return f"{text} is the highest, {low.name} {low.cells[measure].text()} % the lowest."
    return "no group has test images."


def family(rows: Mapping[str, Sequence[RunResult]], answers: Sequence[Answer]) -> str:
    """Say which rows a list of answers is of, where those that saw labels stand apart."""
    seen = {members[0].sees_labels for members in rows.values()}
    if len(seen) < 2:
        return ""
    if rows[answers[0].baseline][0].sees_labels:
        return f"Methods that learn from labels, compared with {answers[0].baseline}:"
    return f"Methods that learn without labels, compared with {answers[0].baseline}:"


def curves_caption(rows: dict[str, list[RunResult]]) -> str:
    """Say how to read the training curves, and which are not shown."""
    text = _CURVES
    more = len(curve_names(rows)) - MAX_CURVES
    if more > 0:
        text += f" {more} more were logged."
    missing = left_out(rows)
    if missing:
        text += f" Left out, as a constant or a single value: {', '.join(missing)}."
    return text


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
    if len(runs[0].class_counts) <= len(CLASSES):
        text += "Colours are classes, named at their middle, with their training images. "
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
            " Numbers in italics are differences to the baseline, taken pair by pair between runs "
            "on the same split and seed, then averaged: what all runs share cancels out."
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
