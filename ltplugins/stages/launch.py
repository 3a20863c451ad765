# SPDX-License-Identifier: MIT
"""From the command line to a stage: Hydra composes, errors of the user's come out as one line."""

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.logging import RichHandler

from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError

# A run has its own folder with config and metrics; Hydra must not make a second one.
QUIET = (
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/hydra_logging=disabled",
    "hydra/job_logging=disabled",
)


def launch(
    stage: Callable[[DictConfig], Any], config_name: str, command: list[str] | None = None
) -> None:
    """Run a stage as a Hydra main on ``sys.argv``.

    ``--config-path`` is taken relative to the working folder, as a user of solo-learn's scripts
    expects; without it the configs are those of ``pkg://ltplugins.conf``.

    Args:
        stage: takes the composed config.
        config_name: the config that is used when ``--config-name`` is not given.
        command: the process's own command line, where ``sys.argv`` is not that.
    """
    # Lightning starts the further processes of a DDP run with sys.argv: it must be the real one.
    command = list(sys.argv if command is None else command)
    sys.argv = [sys.argv[0], *_absolute_config_path(sys.argv[1:]), *_quiet(sys.argv[1:])]

    def task(cfg: DictConfig) -> None:
        sys.argv = command
        set_up_logging()
        guarded(lambda: stage(cfg))

    decorate = hydra.main(
        version_base="1.2", config_path="pkg://ltplugins.conf", config_name=config_name
    )
    decorate(task)()


def guarded(work: Callable[[], Any]) -> Any:
    """Run ``work``; a UserError ends the process with its text and exit code 2."""
    try:
        return work()
    except UserError as error:
        make_console(stderr=True).print(
            f"[bold red]error:[/] {_escape(str(error))}", highlight=False
        )
        raise SystemExit(2) from None


def set_up_logging() -> None:
    """Show this package's messages on the terminal, on the first process only."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    logger = logging.getLogger("ltplugins")
    if not logger.handlers:
        handler = RichHandler(console=make_console(stderr=True), show_path=False, show_time=False)
        logger.addHandler(handler)
        logger.propagate = False
    is_first = getattr(rank_zero_only, "rank", 0) in (0, None)
    logger.setLevel(logging.INFO if is_first else logging.ERROR)
    # Hydra's logging set-up disables the loggers that exist when it runs.
    for name, existing in logging.root.manager.loggerDict.items():
        if name.split(".")[0] == "ltplugins" and isinstance(existing, logging.Logger):
            existing.disabled = False
    # Lightning's advertisements and device list say nothing that our start-up lines do not.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*Checkpoint directory.*",
        # Of the balancing: it has a frozen network, and scores once, at the end.
        ".*in eval mode at the start of training.*",
        ".*have no `validation_step`.*",
        # They are of the global batch, equal on every rank: there is nothing to reduce.
        ".*recommended to use `self.log\\('train_gh_.*",
    ):
        warnings.filterwarnings("ignore", message=text)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _quiet(arguments: list[str]) -> list[str]:
    given = {a.partition("=")[0] for a in arguments}
    return [q for q in QUIET if q.partition("=")[0] not in given]


def _absolute_config_path(arguments: list[str]) -> list[str]:
    result = list(arguments)
    for i, argument in enumerate(arguments):
        if argument in ("--config-path", "-cp") and i + 1 < len(arguments):
            result[i + 1] = _absolute(arguments[i + 1])
        elif argument.startswith("--config-path="):
            result[i] = f"--config-path={_absolute(argument.partition('=')[2])}"
    return result


def _absolute(path: str) -> str:
    return path if path.startswith("pkg://") else str(Path(path).resolve())
