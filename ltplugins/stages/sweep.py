# SPDX-License-Identifier: MIT
"""The plan of a ``--multirun``: which members there are, their folders, and the rows they make.

Values with commas are swept, as in Hydra; ``--config-name a,b`` sweeps over files, for methods
that need settings of their own; a file with a list ``members``, each a line of words, sweeps over
these. ``key=${seed}`` follows another swept key. All members are composed here, so that a typo in
one of them is said before the first is trained.
"""

import itertools
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from ltplugins.config.identity import REPETITIONS
from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.stages.blocks import config_blocks, run_keys
from ltplugins.stages.command import parse_words, quote, read_command
from ltplugins.stages.compose import Composer, compose_packaged


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
        name: of its folder in the sweep's.
        row: of the summary that it belongs to.
        config_path: a folder or ``pkg://...``.
        config_name: of its file.
        overrides: its command line, without ``output_dir``.
        cfg: its config.
    """

    name: str
    row: str
    config_path: str
    config_name: str
    overrides: tuple[str, ...]
    cfg: RunConfig

    def arguments(self, folder: Path) -> list[str]:
        """The command line of this run alone, into ``folder``."""
        where = ["--config-path", self.config_path, "--config-name", self.config_name]
        return [*where, *self.overrides, f"output_dir={quote(str(folder / self.name))}"]


@dataclass(frozen=True)
class Sweep:
    """A planned sweep.

    Attributes:
        folder: of the members' folders, the logs and the report.
        members: in the order in which they are started.
        launcher: what is for Hydra itself (``hydra/launcher=joblib``).
        evaluation: the packaged config of the evaluation; a member's ``eval`` block goes before.
    """

    folder: Path
    members: tuple[Member, ...]
    launcher: tuple[str, ...]
    evaluation: DictConfig


def is_multirun(arguments: Sequence[str]) -> bool:
    """True where Hydra's ``--multirun`` is among the arguments."""
    return "--multirun" in arguments or "-m" in arguments


def plan(arguments: Sequence[str], config_name: str) -> Sweep:
    """Work out the members of a command line.

    Args:
        arguments: of ``ltplugins pretrain``, with ``--multirun``.
        config_name: where ``--config-name`` is not given.

    Raises:
        UserError: nothing is swept, a member that does not compose, an option that has no meaning
            here.
    """
    command = read_command(arguments, config_name)
    if command.flags:
        raise UserError(f"{command.flags[0]} does not go with --multirun; try it on one member.")
    names = command.config_name.split(",")
    parsed = parse_words(command.words)
    launcher = [o for o in parsed if o.key_or_group.startswith("hydra")]
    if any(o.key_or_group.startswith("hydra/sweeper") for o in launcher):
        raise UserError(
            "hydra/sweeper: --multirun trains every combination, in the order given. Leave it out."
        )
    own = [o for o in parsed if o not in launcher]
    output = [o for o in own if o.key_or_group == "output_dir"]
    if any(o.is_sweep_override() for o in output):
        raise UserError("output_dir is the folder of the whole sweep: give one, without commas.")
    own = [o for o in own if o not in output]
    swept = [o.key_or_group for o in own if o.is_sweep_override()]
    composers = [Composer(command.config_path, name, run_keys) for name in names]
    starts = [(composer, words) for composer in composers for words in _listed(composer)]
    if len(starts) == 1 and not swept:
        raise UserError(
            "--multirun sweeps over lists and none is given, such as method=simclr,gh_simclr "
            "seed=0,1,2. For a sweep of one: seed=choice(0)."
        )
    members = _unique(_drafts(starts, own))
    folder = str(output[-1].value()) if output else _default_folder(members[0].cfg)
    return Sweep(
        folder=Path(folder),
        members=members,
        launcher=tuple(str(o.input_line) for o in launcher),
        # Now: while a member runs, Hydra is in use by the launcher.
        evaluation=compose_packaged("evaluate"),
    )


def _drafts(starts: list[tuple[Composer, list[str]]], own: list[Override]) -> list[Member]:
    """A member for each start and each choice of the swept words."""
    many_files = len({composer.name for composer, _ in starts}) > 1
    choices = list(itertools.product(*(_choices(o) for o in own)))
    return [
        _draft(composer, own, list(words), many_files, first)
        for composer, first in starts
        for words in choices
    ]


def _listed(composer: Composer) -> list[list[str]]:
    """The words of each member that the file itself lists under ``members``; else one of none.

    Raises:
        UserError: something else than a list of lines.
    """
    try:
        cfg = composer.compose([])
    except UserError as error:
        raise UserError(f"{composer.name}: {error} Nothing was trained.") from None
    if "members" not in cfg:
        return [[]]
    lines = OmegaConf.to_container(cfg.members) if cfg.members else []
    if not isinstance(lines, list) or not lines or not all(isinstance(x, str) for x in lines):
        raise UserError(
            f"members: expected a list of lines such as 'method=gml max_epochs=10', got {lines!r}. "
            f"Without lines of their own leave it out and sweep over method=simclr,gml."
        )
    # The list is the sweep's; a member's config knows nothing of it.
    return [["~members", *shlex.split(line)] for line in lines]


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: an interval has no list of values. Give a list.")
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _draft(
    composer: Composer, own: list[Override], words: list[str], many_files: bool, first: list[str]
) -> Member:
    """A member with the name and row that its choices give it; ``first`` are its own words."""
    cfg = _resolved(composer, [*first, *words])
    if not cfg.checkpoint.enabled:
        raise UserError(
            "checkpoint.enabled is false, and a sweep evaluates what it trains. Set it to true."
        )
    head = Path(composer.name).stem if many_files else cfg.method
    swept = [
        (o.key_or_group, word.partition("=")[2])
        for o, word in zip(own, words, strict=True)
        if o.is_sweep_override() and (many_files or o.key_or_group != "method")
    ]
    short = _short_keys([key for key, _ in swept])
    parts = [f"{short[key]}={_plain(value)}" for key, value in swept]
    # Repetitions are averaged; any other swept key makes rows of its own.
    kept = [part for part, (key, _) in zip(parts, swept, strict=True) if key not in REPETITIONS]
    return Member(
        name=",".join([_plain(head), *parts]),
        row=", ".join([head, *kept]),
        config_path=composer.path,
        config_name=composer.name,
        overrides=(*first, *words),
        cfg=cfg,
    )


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key where that says which it is."""
    last = [key.split(".")[-1] for key in keys]
    return {k: s if last.count(s) == 1 else k for k, s in zip(keys, last, strict=True)}


def _plain(text: str) -> str:
    """Letters that need no quotes in a shell."""
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")


def _unique(members: list[Member]) -> tuple[Member, ...]:
    names = [member.name for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"two members of the sweep are called '{twice[0]}': a value is given twice."
        )
    return tuple(members)


def _default_folder(cfg: RunConfig) -> str:
    return f"{cfg.checkpoint.dir}/sweep/{cfg.name}"


def _resolved(composer: Composer, overrides: Sequence[str]) -> RunConfig:
    try:
        return resolve(composer.compose(overrides), config_blocks)
    except UserError as error:
        words = " ".join((composer.name, *overrides))
        raise UserError(f"{words}: {error} Nothing was trained.") from None
