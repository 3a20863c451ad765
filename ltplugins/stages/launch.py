# SPDX-License-Identifier: MIT
"""From the command line to a stage: composed, and errors of the user's come out as one line."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ltplugins.core.console import make_console
from ltplugins.core.door import guarded
from ltplugins.core.errors import UserError
from ltplugins.stages.blocks import Hints
from ltplugins.stages.command import PACKAGED, Command, absolute, read_command
from ltplugins.stages.complete import all_keys
from ltplugins.stages.compose import Composer
from ltplugins.stages.logs import set_up_logging

_FULL = "HYDRA_FULL_ERROR"
# A run has its own folder with config and metrics; Hydra must not make a second one.
QUIET = (
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/hydra_logging=disabled",
    "hydra/job_logging=disabled",
)


def launch(
    stage: Callable[[DictConfig], Any],
    config_name: str,
    hints: Hints,
    arguments: Sequence[str],
) -> None:
    """Run a stage on a command line of Hydra's form.

    ``--config-path`` is taken relative to the working folder, as a user of solo-learn's scripts
    expects; without it the configs are those of ``pkg://ltplugins.conf``.

    Args:
        stage: takes the composed config.
        config_name: the config that is used when ``--config-name`` is not given.
        hints: the types of its keys.
        arguments: without the program's name.
    """
    set_up_logging()
    command = guarded(lambda: read_command(arguments, config_name))
    guarded(lambda: _refuse_folders(command))
    composer = guarded(lambda: Composer(command.config_path, command.config_name, hints))
    if command.flags or any(word.startswith("hydra") for word in command.words):
        words = guarded(lambda: composer.mend(command.words)) if command.words else []
        try:
            by_hydra(stage, config_name, _with_words(arguments, command, words))
        finally:  # Hydra's help ends the process
            if "--help" in command.flags and config_name == "pretrain":
                _show_keys()
    else:
        guarded(lambda: stage(composer.compose(command.words)))


def _show_keys() -> None:
    """What Hydra's help leaves out: the keys of a training that the file does not list."""
    lines = [
        "== Keys ==",
        "Those that the config above does not list are set likewise.",
        "",
        *all_keys("pretrain"),
        "",
        "method_kwargs: ltplugins methods NAME; augmentations, data.*: README.md",
    ]
    make_console().print("\n".join(lines), highlight=False, markup=False)


def by_hydra(stage: Callable[[DictConfig], Any], config_name: str, arguments: list[str]) -> None:
    """Leave the command line to Hydra: its options (``--help``, ``--cfg``) and its own keys."""
    # Lightning starts the further processes of a DDP run with sys.argv: it must be the real one.
    real, sys.argv = sys.argv, [sys.argv[0], *_quiet(arguments), *arguments]

    def task(cfg: DictConfig) -> None:
        sys.argv = real
        set_up_logging()
        guarded(lambda: stage(cfg))

    try:
        run_hydra(task, config_name)
    finally:
        sys.argv = real


def run_hydra(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Let Hydra run ``task`` by the command line; what it refuses itself comes out as one line."""
    has_begun = []

    def begin(cfg: DictConfig) -> Any:
        has_begun.append(True)
        restore()
        return task(cfg)

    before = os.environ.get(_FULL)

    def restore() -> None:
        os.environ.pop(_FULL, None)
        if before is not None:
            os.environ[_FULL] = before

    os.environ[_FULL] = "1"  # Hydra then hands its errors on instead of printing a page
    try:
        hydra.main(version_base="1.2", config_path=PACKAGED, config_name=config_name)(begin)()
    except (HydraException, OmegaConfBaseException, OSError) as error:
        if has_begun:
            raise
        reason = " ".join(str(error).partition("Config search path")[0].split())
        guarded(lambda: _refuse(f"Hydra refuses the command line: {reason}"))
    finally:
        restore()


def _refuse(text: str) -> None:
    raise UserError(text)


def _refuse_folders(command: Command) -> None:
    """What Hydra would make or look for before a stage begins."""
    if command.config_dir is not None and not Path(command.config_dir).is_dir():
        raise UserError(
            f"--config-dir: {command.config_dir} is no folder. Give one, or leave it out."
        )
    for word in command.words:
        if word.lstrip("+").startswith("hydra.run.dir"):
            raise UserError(
                f"{word}: nothing is written there. Set output_dir, the folder of all that a run "
                f"writes."
            )


def _with_words(arguments: Sequence[str], command: Command, words: Sequence[str]) -> list[str]:
    """These words, and then the same options, its folder as it is from here: Hydra's own parser
    takes no words after an option that follows words, and ``--info`` takes one for its value."""
    result = []
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if argument in command.words:
            continue
        if before in ("--config-path", "-cp"):
            argument = absolute(argument)
        elif argument.startswith("--config-path="):
            argument = f"--config-path={absolute(argument.partition('=')[2])}"
        result.append(argument)
    return [*words, *result]


def _quiet(arguments: Sequence[str]) -> list[str]:
    given = {a.partition("=")[0] for a in arguments}
    return [q for q in QUIET if q.partition("=")[0] not in given]
