# SPDX-License-Identifier: MIT
"""From runs to rows: what is averaged over what."""

from collections.abc import Sequence

from ltplugins.eval.scores import mean_std
from ltplugins.metrics.groups import GROUPS
from ltplugins.report.cells import (
    METRICS,
    Cell,
    Row,
    Section,
    mark_best,
    proportion_error,
    spread_error,
)
from ltplugins.report.evaluated import RunResult, common_rule, group_runs, value


def summarise(runs: Sequence[RunResult], baseline: str | None = None) -> list[Section]:
    """Build one section per protocol; a row without that protocol shows n/a.

    Differences are to the row called ``baseline``, or to the first that has the protocol.
    """
    rows = group_runs(runs)
    rule = common_rule(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.results.protocols))
    sections = []
    for name in names:
        description = _describe(rows, name)
        table = [_row(label, members, name, rule) for label, members in rows.items()]
        mark_best(table)
        sections.append(
            Section(name, description, rule, table, _differences(rows, name, rule, baseline))
        )
    return sections


def _describe(rows: dict[str, list[RunResult]], protocol: str) -> str:
    """What a protocol is; where rows were scored on different banks, which row on which."""
    found: dict[str, list[str]] = {}
    for label, members in rows.items():
        entries = [run.results.protocols.get(protocol) for run in members]
        texts = [entry.description for entry in entries if entry]
        if texts:  # repetitions of one experiment differ in the images that they drew alone
            found.setdefault(texts[0], []).append(label)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{', '.join(labels)}: {text}" for text, labels in found.items())


def _row(label: str, members: Sequence[RunResult], protocol: str, rule: str) -> Row:
    cells = {}
    for metric in METRICS:
        values = [value(run, protocol, metric, rule) for run in members]
        stat = values[0] if len(values) == 1 else mean_std([v.mean for v in values])
        cells[metric] = Cell(stat.mean, stat.std)
    sizes = [_test_sizes(run, rule) for run in members]
    for metric in (*GROUPS, "overall", "balanced"):
        images = sum(size[metric] for size in sizes) / len(sizes)
        cells[metric].error = proportion_error(cells[metric].mean, images)
    cells["group_std"].error = spread_error([cells[name] for name in GROUPS])
    return Row(label, len(members), cells)


def _test_sizes(run: RunResult, rule: str) -> dict[str, int]:
    """Test images overall and of each group; where they are not written, classes are alike."""
    results = run.results
    num_classes = max(len(results.class_counts), 1)
    counts = results.test_counts or [results.sizes.test // num_classes] * num_classes
    sizes = {name: sum(counts[c] for c in results.groups[rule].of(name)) for name in GROUPS}
    # A balanced mean is about as sure as if its smallest class were the size of all.
    even = min((n for n in counts if n), default=0) * sum(n > 0 for n in counts)
    return {**sizes, "overall": results.sizes.test, "balanced": even}


def _differences(
    rows: dict[str, list[RunResult]], protocol: str, rule: str, baseline: str | None
) -> list[Row]:
    """Differences to a row, by default the first that has the protocol, over two or more pairs."""
    known = [
        name for name, runs in rows.items() if any(protocol in r.results.protocols for r in runs)
    ]
    base = baseline if baseline in known else known[0]
    others = [name for name in known if name != base]
    partners = {run.pair_key: run for run in rows[base] if run.pair_key is not None}
    table = []
    for label in others:
        pairs = [(run, partners[run.pair_key]) for run in rows[label] if run.pair_key in partners]
        if len(pairs) < 2:
            continue
        cells = {}
        for metric in METRICS:
            deltas = []
            for run, partner in pairs:
                ours = value(run, protocol, metric, rule).mean
                theirs = value(partner, protocol, metric, rule).mean
                deltas.append(None if ours is None or theirs is None else ours - theirs)
            stat = mean_std(deltas)
            cells[metric] = Cell(stat.mean, stat.std)
        table.append(Row(f"{label} \N{MINUS SIGN} {base}", len(pairs), cells))
    return table


def spread_note(sections: Sequence[Section]) -> str:
    """Say in one sentence what the ± of the tables is."""
    counts = {row.num_runs for section in sections for row in section.rows}
    if 1 not in counts:
        return "± is the sample standard deviation over training runs."
    if len(counts) > 1:
        return (
            "± is the sample standard deviation over training runs where n is given, and over the "
            "seeds of the probe where there is one run."
        )
    return (
        "± is the sample standard deviation over the seeds of the probe, on one training run each; "
        "the difference between two training runs is not in it."
    )
