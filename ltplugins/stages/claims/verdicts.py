# SPDX-License-Identifier: MIT
"""From the cells' numbers to a verdict for every measure of every claim."""

import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path

from ltplugins.report.claims import ClaimRow, Side, TailRow
from ltplugins.report.paired import paired
from ltplugins.report.tail import tail_cost
from ltplugins.stages.claims.book import PROTOCOLS, Book, Claim, Measure
from ltplugins.stages.claims.cells import Cell, Setting, make_cell
from ltplugins.stages.claims.ledger import Ledger, Line, is_known, number

Trained = tuple[Line, ...]  # a cell, after the one that it starts from where there is such
Pair = tuple[Trained, Trained]  # ours, base


def judge(book: Book, ledger: Ledger, epochs: int | None = None) -> list[ClaimRow]:
    """A row for each claim, measure and device with its settings; one without where none has cells.

    Cells are compared within one device and one set of words alone, and only where both arms had
    the same training and test images. Cells of settings that the file no longer has do not count.

    Args:
        epochs: of a trial, whose cells alone are looked at then.
    """
    rows = []
    for claim in book.claims:
        found = {one: _pairs(book, claim, ledger, _setting(*one, epochs)) for one in _kinds(ledger)}
        found = {one: pairs for one, pairs in found.items() if pairs} or {("", ""): []}
        for (_, settings), pairs in found.items():
            rows += [_row(book, claim, m, pairs, settings, epochs) for m in claim.measures]
    return rows


def judge_tails(book: Book, ledger: Ledger, epochs: int | None = None) -> list[TailRow]:
    """A row for each arm, device and settings whose cells rotate the tail over the classes.

    Args:
        epochs: of a trial, whose cells alone are looked at then.
    """
    rows = []
    for kind in _kinds(ledger):
        setting = _setting(*kind, epochs)
        sides = [(claim.data, side) for claim in book.claims for side in claim.sides(epochs)]
        for data, (arm, trained) in dict.fromkeys(sides):
            lines = _with_images(book, data, (arm, trained), ledger, setting)
            images = [line.images for line in lines]
            costs = {
                protocol: tail_cost(images, [line.by_class[protocol] for line in lines])
                for protocol in PROTOCOLS
                if all(protocol in line.by_class for line in lines)
            }
            costs = {protocol: found for protocol, found in costs.items() if found.n > 1}
            if not costs:
                continue
            rows.append(
                TailRow(
                    arm=arm,
                    epochs=trained,
                    data=data,
                    runs=len(lines),
                    most=max(images[0]),
                    fewest=min(images[0]),
                    costs=costs,
                    device=", ".join(sorted({line.device for line in lines})),
                    settings=kind[1],
                )
            )
    return rows


def _with_images(
    book: Book, data: str, side: tuple[str, int], ledger: Ledger, setting: Setting
) -> list[Line]:
    """The lines of an arm's cells that say how many images each class had."""
    cells = [make_cell(book, data, side, i, setting) for i in range(len(book.data[data].pairs))]
    found = (line for cell in cells for line in _trained(ledger, cell, setting)[-1:])
    return [line for line in found if line.images]


def _kinds(ledger: Ledger) -> list[tuple[str, str]]:
    """The devices and settings that there are cells of."""
    return sorted({(line.accelerator, line.settings) for line in ledger.values()})


def _setting(accelerator: str, settings: str, epochs: int | None) -> Setting:
    return Setting(Path(), accelerator, tuple(shlex.split(settings)), epochs=epochs)


def _pairs(book: Book, claim: Claim, ledger: Ledger, setting: Setting) -> list[Pair]:
    """The pairs whose two cells are known and fit together."""
    pairs = []
    for i in range(len(book.data[claim.data].pairs)):
        cells = [make_cell(book, claim.data, s, i, setting) for s in claim.sides(setting.epochs)]
        ours, base = (_trained(ledger, cell, setting) for cell in cells)
        if ours and base and _images(ours) == _images(base):
            pairs.append((ours, base))
    return pairs


def _trained(ledger: Ledger, cell: Cell, setting: Setting) -> Trained:
    """The cell's line, after that of the one that it starts from; empty where one is missing."""
    cells = [cell] if cell.of is None else [cell.of, cell]
    if not all(is_known(ledger, one, setting) for one in cells):
        return ()
    return tuple(ledger[(setting.accelerator, setting.text, one.name)] for one in cells)


def _images(trained: Trained) -> tuple[str, str]:
    return trained[-1].split, trained[-1].test


def _row(
    book: Book,
    claim: Claim,
    measure: Measure,
    pairs: Sequence[Pair],
    settings: str,
    epochs: int | None,
) -> ClaimRow:
    values = [
        (number(ours[-1], measure, False), number(base[-1], measure, True)) for ours, base in pairs
    ]
    whole = [(a, b) for a, b in values if a is not None and b is not None]
    found = paired([a - b for a, b in whole])
    sides = claim.sides(epochs)
    ours, base = (
        Side(
            arm=sides[i][0],
            epochs=sides[i][1],
            mean=statistics.fmean(v[i] for v in whole) if whole else None,
            steps=_means([[line.steps for line in pair[i]] for pair in pairs]),
            seconds=_sum(_means([[line.seconds for line in pair[i]] for pair in pairs])),
        )
        for i in range(2)
    )
    return ClaimRow(
        claim=claim.name,
        statement=claim.statement,
        paper=claim.paper,
        data=claim.data,
        measure=str(measure),
        equal=claim.equal,
        ours=ours,
        base=base,
        found=found,
        pairs=len(book.data[claim.data].pairs),
        verdict=found.verdict(claim.direction),
        device=", ".join(sorted({line.device for pair in pairs for side in pair for line in side})),
        settings=settings,
    )


def _means(texts: Sequence[Sequence[str]]) -> tuple[float | None, ...]:
    """The mean over pairs of each stage's number; None where one is empty."""
    return tuple(
        statistics.fmean(map(float, stage)) if all(stage) else None
        for stage in zip(*texts, strict=True)
    )


def _sum(stages: Sequence[float | None]) -> float | None:
    """Of all stages; None where there is none, or one is not known."""
    known = [value for value in stages if value is not None]
    return sum(known) if known and len(known) == len(stages) else None
