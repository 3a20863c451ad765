# SPDX-License-Identifier: MIT
"""The demo: SimCLR and GH-SimCLR, equal steps, on embedded long-tailed images, and a report."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.data.sources.land.options import LandConfig
from ltplugins.runs.places import RUN_FILE
from ltplugins.stages.blocks import run_keys
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.report import report

METHODS = ("simclr", "gh_simclr")


@dataclass(frozen=True)
class _Set:
    """One of the demo's data sets.

    Attributes:
        title: of the report.
        repetition: what else than a seed repeats the comparison, as an option of the command.
        key: its key of the config.
        first: its value where none is given.
        values: how many there are; None = any number.
        why: it should be repeated.
        train, evaluate: further words of both stages.
    """

    title: str
    repetition: str
    key: str
    first: int
    values: int | None
    why: str
    train: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()


SETS = {
    "fashion": _Set(
        "SimCLR and GH-SimCLR on long-tailed Fashion-MNIST",
        "class-order",
        "data.imbalance.class_order",
        2,
        None,
        "one class order proves nothing: try others",
    ),
    "land": _Set(
        "SimCLR and GH-SimCLR on tiles of the Earth",
        "fold",
        "data.fold",
        0,
        LandConfig.folds,
        "one fold proves nothing: every place is tested in one of the five",
        ("data=land",),
        # The rarest class has 15 tiles or more in each fold's probe part.
        ("eval.linear.shots=[15,full]",),
    ),
}


def require_free(out: Path) -> None:
    """Refuse the folder of a run, or of other runs than the demo's.

    Raises:
        UserError: see above; before anything is trained.
    """
    if (out / RUN_FILE).exists():
        raise UserError(
            f"--out: expected a folder for the demo's runs, got {out}, which is a run itself. Give "
            f"another one."
        )


def _number(data: str, repeated: Mapping[str, int | None]) -> int:
    """The number of a set's repetition.

    Raises:
        UserError: it has no such one, or the number is of another set.
    """
    chosen = SETS[data]
    for name, number in repeated.items():
        if number is not None and name != chosen.repetition:
            raise UserError(
                f"--{name}: expected nothing with --data {data}, got {number}. Set "
                f"--{chosen.repetition}."
            )
    found = repeated.get(chosen.repetition)
    if found is not None and chosen.values is not None and found >= chosen.values:
        raise UserError(
            f"--{chosen.repetition}: expected a number from 0 to {chosen.values - 1}, got {found}."
        )
    return chosen.first if found is None else found


def demo(
    out: str | Path | None = None,
    data: str = "fashion",
    repeated: Mapping[str, int | None] | None = None,
    *,
    seed: int = 0,
    epochs: int | None = None,
) -> Path:
    """Pretrain, evaluate and compare; called again it continues or shows what is there.

    Args:
        out: folder of the runs and of report.html; None = below ``runs``.
        data: one of ``SETS``.
        repeated: ``class-order`` of ``fashion``, the seed of the permutation that says which class
            is head and which tail; ``fold`` of ``land``, to test on. None = the set's first.
        seed: of both runs.
        epochs: instead of the demo's own length.

    Raises:
        UserError: the folder is a run's, or the set has no such fold; before anything is trained.
    """
    out = Path(out or ("runs/demo" if data == "fashion" else f"runs/demo-{data}"))
    require_free(out)
    chosen = SETS[data]
    number = _number(data, repeated or {})
    console = make_console()
    started = time.perf_counter()
    console.rule("ltplugins demo: who wins where on long-tailed images?")
    runs = []
    for method in METHODS:
        folder = out / method
        overrides = [
            *chosen.train,
            f"method={method}",
            f"output_dir={folder}",
            f"seed={seed}",
            f"{chosen.key}={number}",
            *([f"max_epochs={epochs}"] if epochs is not None else []),
        ]
        pretrain(compose_packaged("pretrain", overrides, run_keys))
        evaluate(compose_packaged("evaluate", [f"run={folder}", *chosen.evaluate]))
        runs.append(folder)
    page = report(runs, out, title=chosen.title)
    minutes = (time.perf_counter() - started) / 60
    _farewell(console, out, page, minutes)
    options = [f"--data {data}"] if data != "fashion" else []
    options += [f"--seed {seed}"] if seed else []
    options += [f"--epochs {epochs}"] if epochs else []
    other = number + 1 if chosen.values is None else (number + 1) % chosen.values
    _advise(console, out, chosen, other, options)
    return page


def _farewell(console: Console, out: Path, page: Path, minutes: float) -> None:
    console.rule(f"done in {minutes:.1f} min")
    console.print("Where everything lies", style="bold", highlight=False)
    console.print(
        f"""\
  {page}  the pictures: open it in a browser
  {out}/<method>/  config.yaml, run.json, metrics.csv, results.json, checkpoints/
""",
        highlight=False,
    )


def _advise(console: Console, out: Path, of: _Set, number: int, options: list[str]) -> None:
    """Commands that work after this one, in this order."""
    other = out.with_name(f"{out.name}-{of.repetition.removeprefix('class-')}-{number}")
    both = out.with_name(f"{out.name}-both")
    first, second, pages = (shlex.quote(str(path)) for path in (out, other, both))
    again = " ".join([f"ltplugins demo --{of.repetition} {number}", *options, f"--out {second}"])
    another = ["ltplugins pretrain", *of.train, "method=gh_byol max_epochs=50"]
    console.print("What to try next", style="bold")
    for command, what in (
        (again, of.why),
        (f"ltplugins report {first} {second} --out {pages}", "then: mean and spread over both"),
        (" ".join(another), "another base, any key overridden"),
        ("ltplugins pretrain --help", "every key"),
    ):
        console.print(
            f"  {command}", f"    {what}", sep="\n", highlight=False, markup=False, soft_wrap=True
        )
