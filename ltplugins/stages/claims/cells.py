# SPDX-License-Identifier: MIT
"""The cells of the claims: an arm, its epochs, one pair of its data. Claims share them.

<root>/<variant>/<cell>/              a run folder    variant: cuda,precision=bf16-mixed
<root>/<variant>/logs/<cell>.log      what it said    cell: fashion,gh_simclr,e500,p1
<root>/<variant>/logs/<cell>.json     its words, their hash, and the devices that it has been on
<root>/<variant>/logs/<cell>.lock     held by the call that trains it
"""

import hashlib
import platform
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltplugins.core.errors import UserError
from ltplugins.core.files import write_json
from ltplugins.core.records import read_json
from ltplugins.runs.facts import now
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.claims.book import Book, Claim
from ltplugins.stages.command import quote

SETTING = "setting.json"


@dataclass(frozen=True)
class Setting:
    """What all cells of one call share.

    Attributes:
        root: of the folders.
        accelerator: ``cpu`` or ``cuda``.
        words: of every pretraining, after the file's own.
        pairs: how many of each data set; None = all.
        epochs: of the longer side of each claim, for a trial; None = the file's.
    """

    root: Path
    accelerator: str = "cpu"
    words: tuple[str, ...] = ()
    pairs: int | None = None
    epochs: int | None = None

    @property
    def text(self) -> str:
        """The words as a line."""
        return shlex.join(self.words)

    @property
    def folder(self) -> Path:
        """Of the cells that can be compared with one another: one device, the same words."""
        return self.root / ",".join([self.accelerator, *(_plain(word) for word in self.words)])


@dataclass(frozen=True)
class Cell:
    """One training and its evaluation.

    Attributes:
        name: of its folder.
        folder: of all cells of its variant.
        stage: ``pretrain`` or ``balance``.
        words: its command line, without ``output_dir``; ``{of}`` stands for the folder of ``of``.
        accelerator: where it is evaluated, too.
        of: the cell that must be finished before.
    """

    name: str
    folder: Path
    stage: str
    words: tuple[str, ...]
    accelerator: str
    of: "Cell | None" = field(default=None)

    @property
    def path(self) -> Path:
        """Its run folder."""
        return self.folder / self.name

    @property
    def log(self) -> Path:
        """What its process said."""
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def notes(self) -> Path:
        """Its words and devices."""
        return self.folder / "logs" / f"{self.name}.json"

    @property
    def command(self) -> list[str]:
        """Its command line."""
        there = "" if self.of is None else str(self.of.path)
        words = [word.replace("{of}", there) for word in self.words]
        return [*words, f"output_dir={quote(str(self.path))}"]

    @property
    def lock(self) -> Path:
        """Held while a process trains it."""
        return self.folder / "logs" / f"{self.name}.lock"

    @property
    def words_hash(self) -> str:
        """What tells settings apart, wherever the cells lie; with those of the first stage."""
        return _hash(self.words, () if self.of is None else self.of.words)

    @property
    def trained_hash(self) -> str:
        """:attr:`words_hash` as it was when the cell was trained; the same where it was not."""
        notes = self._notes()
        if "hash" in notes:
            return str(notes["hash"])
        # Notes of before the hash was written down.
        return _hash(notes["words"], () if self.of is None else self.of._notes()["words"])

    @property
    def has_weights(self) -> bool:
        """Whether another cell could be trained on it."""
        return self.is_done and RunFolder(self.path).last_checkpoint is not None

    @property
    def is_done(self) -> bool:
        """Whether it is trained to its end and evaluated."""
        run = RunFolder(self.path)
        facts = run.facts
        return facts is not None and facts.finished is not None and run.results.exists()

    def spells(self) -> list[dict[str, str]]:
        """When it was begun or taken up again, and on which device."""
        found: list[dict[str, str]] = self._notes()["spells"]
        return found

    def note_spell(self) -> None:
        """Write down that it is being trained here, now.

        Raises:
            UserError: its folder is of a cell with other words.
        """
        self.require_same()
        here = {"device": device_name(self.accelerator), "started": now()}
        spells = [*self.spells(), here]
        notes = {"words": list(self.words), "hash": self.words_hash, "spells": spells}
        write_json(self.notes, notes)

    def require_same(self) -> None:
        """Refuse a cell that was trained with other words, for the file has changed since.

        Raises:
            UserError: with the first word that differs, or of a second stage the name of its first.
        """
        differ = sorted(set(self._notes()["words"]) ^ set(self.words))
        if not differ and self.trained_hash != self.words_hash and self.of is not None:
            differ = [f"those of {self.of.name}, which it started from"]
        if differ:
            raise UserError(
                f"{self.path} was trained with other settings than the file has now "
                f"({', '.join(differ[:3])}). Move it away together with {self.notes}."
            )

    def require_weights(self) -> None:
        """Refuse a cell that another one starts from and that has numbers alone.

        Raises:
            UserError: it is done, and its weights are gone.
        """
        if self.is_done and not self.has_weights:
            raise UserError(
                f"{self.path} is finished and holds no checkpoint: expected the weights that other "
                f"cells start from. Bring them back, or move it away together with {self.notes}: "
                f"it is trained anew."
            )

    def _notes(self) -> dict[str, Any]:
        if not self.notes.exists():
            return {"words": list(self.words), "spells": []}
        found: dict[str, Any] = read_json(self.notes)
        return found


def note_setting(setting: Setting) -> None:
    """Write down in the cells' folder what their words are beyond the file's."""
    plain = {"accelerator": setting.accelerator, "words": list(setting.words)}
    write_json(setting.folder / SETTING, plain)


def settings_of(root: Path) -> list[Setting]:
    """The settings of all calls that have left cells in a folder."""
    found = [read_json(path) for path in sorted(root.glob(f"*/{SETTING}"))]
    return [Setting(root, one["accelerator"], tuple(one["words"])) for one in found]


def plan_cells(book: Book, claims: Iterable[Claim], setting: Setting) -> list[Cell]:
    """The cells of these claims, in the order of the file, pair by pair; each once."""
    cells: dict[str, Cell] = {}
    for claim in claims:
        for pair in range(num_pairs(book, claim, setting)):
            for side in claim.sides(setting.epochs):
                cell = make_cell(book, claim.data, side, pair, setting)
                for one in filter(None, (cell.of, cell)):
                    cells.setdefault(one.name, one)
    return list(cells.values())


def num_pairs(book: Book, claim: Claim, setting: Setting) -> int:
    """How many pairs of a claim's data are asked for."""
    pairs = len(book.data[claim.data].pairs)
    return pairs if setting.pairs is None else min(pairs, setting.pairs)


def make_cell(book: Book, data: str, side: tuple[str, int], pair: int, setting: Setting) -> Cell:
    """The cell of an arm and its epochs on one pair, counted from 0."""
    name, epochs = side
    arm = book.arms[name]
    before = None if arm.of is None else make_cell(book, data, (arm.of, epochs), pair, setting)
    machine = [f"accelerator={setting.accelerator}", "devices=1"]
    if arm.stage == "balance":
        words = ["run='{of}'", *machine, *arm.words]
    else:
        images = book.data[data]
        words = [*book.common, *images.words, *arm.words, *images.pairs[pair].split()]
        words += [f"max_epochs={epochs}", *machine, *setting.words]
    return Cell(
        name=f"{data},{name},e{epochs},p{pair + 1}",
        folder=setting.folder,
        stage=arm.stage,
        words=tuple(last_of_each(words)),
        accelerator=setting.accelerator,
        of=before,
    )


def last_of_each(words: Sequence[str]) -> list[str]:
    """The words without those that a later one of the same key replaces.

    >>> last_of_each(["lr=1", "seed=0", "lr=2"])
    ['seed=0', 'lr=2']
    """
    keys = [word.partition("=")[0] for word in words]
    return [w for i, w in enumerate(words) if keys[i] not in keys[i + 1 :]]


def _hash(words: Iterable[str], of_first: Iterable[str]) -> str:
    """Of a cell's words and those of its first stage."""
    return hashlib.sha256("\n".join(sorted([*words, *of_first])).encode()).hexdigest()[:12]


def device_name(accelerator: str) -> str:
    """What this process computes on."""
    if accelerator == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"CPU, {platform.machine()}"


def _plain(word: str) -> str:
    """A word that can be part of a folder's name."""
    return "".join(c if c.isalnum() or c in "=.-_" else "-" for c in word)
