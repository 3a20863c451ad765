# SPDX-License-Identifier: MIT
"""A run that may become an entry: finished, with a seed, and with numbers of what it is now."""

import logging
from pathlib import Path
from typing import Any

from ltplugins.core.errors import UserError
from ltplugins.eval.results import Results
from ltplugins.runs.checkpoint import require_run
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.command import quote
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.traits import whole_config
from ltplugins.zoo.gather import Evaluated

log = logging.getLogger(__name__)


def open_evaluated(path: Path) -> Evaluated:
    """A finished run with numbers of its last checkpoint, which are taken where there are none.

    Raises:
        UserError: no run, no config, one that asks for values of this machine, no seed, a training
            that is not finished.
    """
    require_run(path)
    folder = RunFolder.existing(path)
    facts = folder.read()
    if facts.finished is None:
        far = f" ({facts.stopped})" if facts.stopped else ""
        raise UserError(
            f"{path} is not finished{far}: expected a run that has trained all its epochs. Give "
            f"its config to ltplugins pretrain again, which goes on."
        )
    config = whole_config(folder)
    if "finetune" in config or "balance" in config:
        raise UserError(
            f"{path} is a second stage: expected a pretraining. Add the run that it started from."
        )
    if config.get("seed") is None:
        raise UserError(
            f"{path}: its config says no seed: no entry can say what it is. Train anew."
        )
    results = _results(path, facts.progress.epochs if facts.progress else None, config)
    if results.progress is not None and not results.progress.is_complete:
        raise UserError(f"{path}: its results are of an unfinished training. Evaluate it again.")
    return Evaluated(path, facts, config, results)


def _results(path: Path, epochs: int | None, config: Any) -> Results:
    file = path / "results.json"
    if file.exists():
        results = Results.read(file)
        if epochs is None or results.epoch == epochs:
            return results
    log.info("%s is evaluated", path)
    return evaluate(compose_packaged("evaluate", [f"run={quote(str(path))}"]))
