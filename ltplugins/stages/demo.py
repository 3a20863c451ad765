# SPDX-License-Identifier: MIT
"""The demo: SimCLR and GH-SimCLR, equal steps, on embedded long-tailed images, and a report."""

import shlex
import time
from pathlib import Path

from rich.console import Console

from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.runs.checkpoint import RUN_FILE
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.report import report

METHODS = ("simclr", "gh_simclr")


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


def demo(
    out: str | Path, *, class_order: int = 2, seed: int = 0, epochs: int | None = None
) -> Path:
    """Pretrain, evaluate and compare; called again it continues or shows what is there.

    Args:
        out: folder of the runs and of report.html.
        class_order: seed of the permutation that says which class is head and which tail.
        seed: of both runs.
        epochs: instead of the demo's own length.
    """
    require_free(Path(out))
    console = make_console()
    started = time.perf_counter()
    console.rule("[bold]ltplugins demo[/]: who wins where on long-tailed images?")
    runs = []
    for method in METHODS:
        folder = Path(out) / method
        overrides = [
            f"method={method}",
            f"output_dir={folder}",
            f"seed={seed}",
            f"data.imbalance.class_order={class_order}",
            *([f"max_epochs={epochs}"] if epochs is not None else []),
        ]
        pretrain(compose_packaged("pretrain", overrides))
        evaluate(compose_packaged("evaluate", [f"run={folder}"]))
        runs.append(folder)
    title = "SimCLR and GH-SimCLR on long-tailed Fashion-MNIST"
    page = report(runs, out, title=title)
    minutes = (time.perf_counter() - started) / 60
    _farewell(console, Path(out), page, minutes)
    options = [f"--seed {seed}"] if seed else []
    options += [f"--epochs {epochs}"] if epochs else []
    _advise(console, Path(out), class_order + 1, options)
    return page


def _farewell(console: Console, out: Path, page: Path, minutes: float) -> None:
    console.rule(f"done in {minutes:.1f} min")
    console.print(
        f"""[bold]Where everything lies[/]
  {page}  the pictures: open it in a browser
  {out}/<method>/  config.yaml, run.json, metrics.csv, results.json, checkpoints/
""",
        highlight=False,
    )


def _advise(console: Console, out: Path, order: int, options: list[str]) -> None:
    """Commands that work after this one, in this order."""
    other = out.with_name(f"{out.name}-order-{order}")
    both = out.with_name(f"{out.name}-both")
    first, second, pages = (shlex.quote(str(path)) for path in (out, other, both))
    again = " ".join([f"ltplugins demo --class-order {order}", *options, f"--out {second}"])
    console.print("[bold]What to try next[/]")
    for command, what in (
        (again, "one class order proves nothing: try others"),
        (f"ltplugins report {first} {second} --out {pages}", "then: mean and spread over both"),
        ("ltplugins pretrain method=gh_byol max_epochs=50", "another base, any key overridden"),
        ("ltplugins pretrain --help", "every key"),
    ):
        console.print(
            f"  {command}", f"    {what}", sep="\n", highlight=False, markup=False, soft_wrap=True
        )
