# SPDX-License-Identifier: MIT
"""Numbers beside the table's: the worst classes, calibration by group, and all of them as a CSV.

ECE is the expected calibration error. Runs that were evaluated before they were written are n/a.
"""

import csv
import io
from collections.abc import Mapping, Sequence

from ltplugins.eval.results import ProtocolResult, Stat
from ltplugins.eval.scores import mean_std
from ltplugins.metrics.groups import GROUPS
from ltplugins.report.cells import METRICS, Cell, Row, Section
from ltplugins.report.evaluated import RunResult, value

MORE = {
    "harmonic": "harmonic mean",
    "min_class": "worst class",
    "ece": "ECE",
    **{f"ece_{name}": f"ECE {name}" for name in GROUPS},
}
READING = (
    "In %. Harmonic mean and worst class are of the accuracies per class; the harmonic "
    "mean is 0 where a class has no hit. ECE is the expected calibration error (15 bins of the "
    "largest probability), lower is better; by group over the test images of its classes."
)
Rows = Mapping[str, Sequence[RunResult]]


def more_numbers(rows: Rows, section: Section) -> list[Row]:
    """The cells of MORE for each row of a protocol; no rows where no run has any of them."""
    table = []
    for name, members in rows.items():
        cells = {}
        for metric in MORE:
            values = [_stat(run, section, metric) for run in members]
            stat = values[0] if len(values) == 1 else mean_std([v.mean for v in values])
            cells[metric] = Cell(stat.mean, stat.std)
        table.append(Row(name, len(members), cells))
    is_known = any(row.cells["ece"].mean is not None for row in table)
    return table if is_known else []


def _stat(run: RunResult, section: Section, metric: str) -> Stat:
    entry = run.results.protocols.get(section.protocol)
    found = None if entry is None else _of_entry(entry, section.rule, metric)
    return found or mean_std([])


def _of_entry(entry: ProtocolResult, rule: str, metric: str) -> Stat | None:
    if metric.startswith("ece_"):
        return (entry.group_ece or {}).get(rule, {}).get(metric.removeprefix("ece_"))
    return getattr(entry, metric)


def numbers_csv(rows: Rows, sections: Sequence[Section]) -> str:
    """Every number of the runs, one a line, as fractions; empty = n/a.

    ``taken_few_many`` is the share of the few-shot classes' test images that is taken for a class
    of many. ``std`` is over the seeds of the probe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("protocol", "groups", "row", "run", "metric", "mean", "std", "n"))
    for section in sections:
        for row, members in rows.items():
            for run in members:
                if section.protocol not in run.results.protocols:
                    continue
                start = (section.protocol, section.rule, row, run.name)
                for metric, stat in _all(run, section).items():
                    cells = ["" if v is None else f"{v:.6g}" for v in (stat.mean, stat.std)]
                    writer.writerow((*start, metric, *cells, stat.n))
    return out.getvalue()


def _all(run: RunResult, section: Section) -> dict[str, Stat]:
    found = {m: value(run, section.protocol, m, section.rule) for m in METRICS}
    found |= {m: _stat(run, section, m) for m in MORE}
    entry = run.results.protocols[section.protocol]
    for true, counts in zip(GROUPS, (entry.confusion or {}).get(section.rule, ()), strict=False):
        for taken, count in zip(GROUPS, counts, strict=True):
            share = count / sum(counts) if sum(counts) else None
            found[f"taken_{true}_{taken}"] = Stat(share, None, entry.n)
    return found
