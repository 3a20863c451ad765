# SPDX-License-Identifier: MIT
"""Every picture that runs have data for, with its heading, its caption and what it shows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ltplugins.report import findings, health, plates, prior, style, words
from ltplugins.report.cells import Section
from ltplugins.report.classes import by_count_panels, taken_panels
from ltplugins.report.compare import Answer
from ltplugins.report.curves import curve_names, curve_panels, knn_names
from ltplugins.report.evaluated import RunResult
from ltplugins.report.figures import cost_panels, count_panels, level_panels
from ltplugins.report.forest import draw_forest
from ltplugins.report.plates import Plate
from ltplugins.report.scatter import scatter_panels
from ltplugins.report.sureness import confusion_panels, reliability_panels
from ltplugins.report.thumbs import Thumbs

Rows = Mapping[str, Sequence[RunResult]]


@dataclass
class Picture:
    """A drawn plate.

    Attributes:
        name: of its file under ``figures/``.
        heading, caption: of the page.
        finding: what it shows, in words.
        svgs: one a panel.
    """

    name: str
    heading: str
    caption: str
    finding: str
    plate: Plate
    svgs: list[str]


@dataclass
class Study:
    """What a report is about.

    Attributes:
        rows: runs by row; sections: their tables; rule: of the groups; baseline: a row.
        answers: protocol -> what can be said of its measures, a list for each family of rows.
    """

    runs: Sequence[RunResult]
    rows: dict[str, list[RunResult]]
    sections: list[Section]
    rule: str
    baseline: str
    answers: dict[str, list[list[Answer]]] = field(default_factory=dict)

    @property
    def leader(self) -> str:
        """Of the few by the first protocol that can tell, or the baseline."""
        for families in self.answers.values():
            for answers in families[:1]:
                return next((a.leader for a in answers), self.baseline)
        return self.baseline

    @property
    def best_other(self) -> str | None:
        """The leader, or where that is the baseline, the next by the same measure; None alone."""
        if self.leader != self.baseline:
            return self.leader
        for families in self.answers.values():
            for answers in families[:1]:
                return next((a.effects[0].row for a in answers), None)
        return next((row for row in self.rows if row != self.baseline), None)


def draw_pictures(study: Study, folder: Path, thumbs: Thumbs) -> list[Picture]:
    """Draw and save every picture; forest plots first, named ``forest-*``."""
    pictures: list[Picture] = []

    def add(name: str, heading: str, caption: str, plate: Plate | None, finding: str = "") -> None:
        if plate is not None:
            svgs = plates.render(plate, folder / name, thumbs)
            pictures.append(Picture(name, heading, caption, finding or caption, plate, svgs))

    rows, rule, runs = study.rows, study.rule, study.runs
    first, marked = study.sections[0], (study.baseline, study.leader)
    with style.theme("ltplugins"):
        for k, (protocol, families) in enumerate(study.answers.items()):
            for part, answers in enumerate(families):
                name = f"forest-{k}-{part}.png" if part else f"forest-{k}.png"
                plate = draw_forest(answers)
                caption = "" if pictures else words.FOREST_CAPTION  # once is enough
                add(name, protocol, caption, plate, words.forest_finding(answers))
        caption = words.GROUPS_CAPTION
        plate = level_panels(study.sections)
        add("groups.png", "Shot groups", caption, plate, words.level_finding(first))
        plate = cost_panels(rows, first.protocol, rule, study.baseline, study.leader)
        add("cost.png", "Accuracy against cost", words.COST_CAPTION, plate, findings.of_cost(rows))
        if all(any(run.class_counts) for run in runs):  # else nobody knows what is rare
            caption = words.by_count_caption(rows, first.protocol)
            plate = by_count_panels(rows, first.protocol, study.baseline)
            told = findings.of_classes(rows, first.protocol)
            add("rank.png", "Accuracy against training images", caption, plate, told)
            _confusions(study, first.protocol, add)
            caption = words.counts_caption(runs)
            add("counts.png", "The training split", caption, count_panels(runs[0], rule))
            plate = scatter_panels(runs, rule)
            told = findings.of_maps(runs, rule)
            add("scatter.png", "Test features", words.scatter_caption(runs), plate, told)
            plate = reliability_panels(rows, rule)
            told = findings.of_sureness(rows, rule)
            add("reliability.png", "How sure they are", words.sureness_caption(rows), plate, told)
        caption, plate = words.curves_caption(rows), curve_panels(rows, marked)
        told = findings.of_courses(rows, curve_names(rows))
        add("curves.png", "Training", caption, plate, told)
        plate = curve_panels(rows, marked, is_knn=True)
        told = findings.of_courses(rows, knn_names(rows))
        add("knn.png", "kNN while training", words.KNN_CAPTION, plate, told)
        add("prior.png", "GH's prior", prior.CAPTION, prior.prior_panels(rows), prior.finding(rows))
        plate = health.health_panels(rows, marked)
        told = findings.of_courses(rows, list(health.TITLES), "health")
        add("health.png", "Health of the features", health.CAPTION, plate, told)
    return pictures


def _confusions(study: Study, protocol: str, add: Callable[..., None]) -> None:
    plate = confusion_panels(study.rows, study.rule, protocol)
    told = findings.of_groups(study.rows, study.rule, protocol)
    add("confusion.png", "Head and tail mistaken", words.CONFUSION_CAPTION, plate, told)
    shown = {name: members[0] for name, members in study.rows.items()}  # of those that know it
    told = findings.of_taken(shown)
    add("taken.png", "Where each class goes", words.TAKEN_CAPTION, taken_panels(shown), told)
