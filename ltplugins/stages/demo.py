# SPDX-License-Identifier: MIT
"""The demo: SimCLR and GH-SimCLR, equal steps, on embedded long-tailed images, and a report."""

import time
from pathlib import Path

from rich.console import Console

from ltplugins.core.console import make_console
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.report import report

METHODS = ("simclr", "gh_simclr")


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
    return page


def _farewell(console: Console, out: Path, page: Path, minutes: float) -> None:
    console.rule(f"done in {minutes:.1f} min")
    console.print(
        f"""[bold]Where everything lies[/]
  {page}  the pictures: open it in a browser
  {out}/<method>/  config.yaml, run.json, metrics.csv, results.json, checkpoints/

[bold]What to try next[/]
  ltplugins demo --class-order 3 --out runs/demo-3     one class order proves nothing: try others
  ltplugins report {out} runs/demo-3 --out runs/both   mean and spread over both
  ltplugins pretrain method=gh_byol max_epochs=50      another base, any key overridden
  ltplugins pretrain --help                            every key""",
        highlight=False,
    )
