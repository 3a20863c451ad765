# SPDX-License-Identifier: MIT
"""``claims_cells.csv``: a line for each finished cell, from which all verdicts follow.

It is committed, so that what was measured elsewhere needs no second training here.
"""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ltplugins.core.errors import UserError
from ltplugins.core.files import write_text
from ltplugins.eval.results import ProtocolResult, Results, Stat
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.claims.book import GROUPS, PROTOCOLS, Measure
from ltplugins.stages.claims.cells import Cell, Setting

NAME = "claims_cells.csv"
_RULE = "tercile"
_NUMBERS = tuple(f"{protocol} {group}" for protocol in PROTOCOLS for group in GROUPS)
_IMAGES = "images by class"
_BY_CLASS = {f"{protocol} by class": protocol for protocol in PROTOCOLS}


@dataclass(frozen=True)
class Line:
    """One cell that is done.

    Attributes:
        accelerator, settings: of its call; settings are words beyond the file's.
        cell: its name.
        words: hash of its words.
        device: what it was trained on.
        commit: of the code.
        split, test: hashes of its training split and its test images.
        steps, seconds: of the training; seconds are empty where it was interrupted.
        numbers: by "protocol group", fractions.
        images: of the training, by class; empty in lines from before they were kept.
        by_class: protocol -> each class's accuracy, where all have one.
    """

    accelerator: str
    settings: str
    cell: str
    words: str
    device: str
    commit: str
    split: str
    test: str
    steps: str
    seconds: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    images: tuple[int, ...] = ()
    by_class: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """There is one of each."""
        return self.accelerator, self.settings, self.cell


_TEXTS = tuple(f.name for f in dataclasses.fields(Line) if f.type is str)
_COLUMNS = (*_TEXTS, *_NUMBERS, _IMAGES, *_BY_CLASS)
Ledger = dict[tuple[str, str, str], Line]


def read_ledger(folder: Path) -> Ledger:
    """The lines of a folder's file; none where there is no file.

    Raises:
        UserError: a file of another form.
    """
    path = folder / NAME
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as f:
        reader = csv.DictReader(f)
        if tuple(reader.fieldnames or ()) != _COLUMNS:
            raise UserError(
                f"{path}: expected the columns {', '.join(_TEXTS)} and numbers, got "
                f"{', '.join(reader.fieldnames or ['none'])}. Restore it, or move it away."
            )
        lines = [
            Line(
                **{name: row[name] for name in _TEXTS},
                numbers={name: float(row[name]) for name in _NUMBERS if row[name]},
                images=tuple(map(int, row[_IMAGES].split())),
                by_class={
                    protocol: tuple(map(float, row[name].split()))
                    for name, protocol in _BY_CLASS.items()
                    if row[name]
                },
            )
            for row in reader
        ]
    return {line.key: line for line in lines}


def write_ledger(ledger: Ledger, folder: Path) -> None:
    """Write the file, sorted, so that additions are all that differs."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for _, line in sorted(ledger.items()):
        texts = [getattr(line, name) for name in _TEXTS]
        numbers = [line.numbers.get(name) for name in _NUMBERS]
        texts += ["" if n is None else f"{n:.6f}" for n in numbers]
        texts.append(" ".join(map(str, line.images)))
        for protocol in _BY_CLASS.values():
            texts.append(" ".join(f"{share:.4f}" for share in line.by_class.get(protocol, ())))
        writer.writerow(texts)
    write_text(folder / NAME, stream.getvalue())


def add_cells(ledger: Ledger, cells: Iterable[Cell], setting: Setting) -> None:
    """Add those that are done in their folders, by the words that the file has now."""
    for cell in cells:
        if cell.is_done and cell.trained_hash == cell.words_hash:
            line = _line(cell, setting)
            ledger[line.key] = line


def is_known(ledger: Ledger, cell: Cell, setting: Setting) -> bool:
    """Whether a cell was measured with the words that it has now."""
    line = ledger.get((setting.accelerator, setting.text, cell.name))
    return line is not None and line.words == cell.words_hash


def _line(cell: Cell, setting: Setting) -> Line:
    run = RunFolder(cell.path)
    facts, results = run.read(), Results.read(run.results)
    spells = cell.spells()
    return Line(
        accelerator=setting.accelerator,
        settings=setting.text,
        cell=cell.name,
        words=cell.words_hash,
        device=" + ".join(sorted({spell["device"] for spell in spells})),
        commit=facts.git or "",
        split=results.split.hash[:12],
        test=results.parts.get("test", "")[:12],
        steps=str(facts.progress.steps) if facts.progress else "",
        seconds=f"{facts.seconds:g}" if facts.seconds and len(spells) == 1 else "",
        numbers=_numbers(results),
        images=tuple(facts.split.class_counts),
        by_class={
            kind: tuple(share for share in entry.per_class if share is not None)
            for kind, entry in _by_kind(results).items()
            if None not in entry.per_class
        },
    )


def _by_kind(results: Results) -> dict[str, ProtocolResult]:
    found: dict[str, ProtocolResult] = {}
    for name, entry in results.protocols.items():
        kind = name if name in PROTOCOLS else name.partition("_")[0]
        if kind in PROTOCOLS and not name.startswith("linear_lt_"):  # that is adjusted: another
            found.setdefault(kind, entry)  # of several kinds of shots the first
    return found


def _numbers(results: Results) -> dict[str, float]:
    return {
        f"{kind} {group}": mean
        for kind, entry in _by_kind(results).items()
        for group in GROUPS
        if (mean := _stat(entry, group).mean) is not None
    }


def _stat(entry: ProtocolResult, group: str) -> Stat:
    if group == "overall":
        return entry.overall
    return entry.balanced if group == "balanced" else entry.groups[_RULE][group]


def number(line: Line, measure: Measure, of_base: bool) -> float | None:
    """What a measure says of a cell."""
    protocol = measure.base_protocol if of_base else measure.protocol
    return line.numbers.get(f"{protocol} {measure.group}")
