# SPDX-License-Identifier: MIT
"""A run's folder: what was run, with what, and what came out. One run, one folder.

config.yaml   the resolved config          run.json     versions, split, host, command line
metrics.csv   every logged metric          checkpoints/ last.ckpt, previous.ckpt, stopped.ckpt
                                                        (and epoch=N.ckpt), args.json for
                                                        solo-learn
results.json  the evaluation               gallery.npz  small copies of a few images, for pages
.lock         held while a process writes here
"""

import dataclasses
import enum
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from ltplugins.config.identity import comparable, differences
from ltplugins.core.errors import UserError
from ltplugins.core.files import sweep, write_text
from ltplugins.runs.checkpoint import read_args, require_run
from ltplugins.runs.contents import LOCK, clear, refuse_foreign
from ltplugins.runs.facts import TRIAL, Origin, RunFacts
from ltplugins.runs.lock import take_lock
from ltplugins.runs.mend import CONFIG, facts_of_checkpoint, load_config, mend
from ltplugins.runs.places import ARGS, LAST_CHECKPOINT, RUN_FILE

log = logging.getLogger(__name__)


class Found(enum.Enum):
    """What a run's folder holds: nothing to go on from, an interrupted run, one that is over."""

    NEW = "new"
    UNFINISHED = "unfinished"
    OVER = "over"


class RunFolder:
    """Opens or creates a run's folder and refuses one that holds another config's run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path | None:
        """``last.ckpt``, if an epoch was completed."""
        path = self.path / LAST_CHECKPOINT
        return path if path.exists() else None

    @property
    def metrics(self) -> Path:
        """The CSV of all logged metrics."""
        return self.path / "metrics.csv"

    @property
    def results(self) -> Path:
        """The evaluation's results."""
        return self.path / "results.json"

    @classmethod
    def existing(cls, path: str | Path) -> "RunFolder":
        """Open the folder of a finished or interrupted run.

        Raises:
            UserError: no such folder, or no run in it.
        """
        run = cls(path)
        require_run(run.path)
        return run

    @classmethod
    def evaluated(cls, path: str | Path) -> "RunFolder":
        """Open the folder of a run, or of a checkpoint of solo-learn's that has been evaluated.

        Raises:
            UserError: neither is there.
        """
        run = cls(path)
        if not run.results.exists():
            require_run(run.path)
            raise UserError(f"{path} is not evaluated yet: ltplugins evaluate {path}")
        return run

    @property
    def facts(self) -> RunFacts | None:
        """What run.json says; None beside a checkpoint of solo-learn's."""
        return self.read() if (self.path / RUN_FILE).exists() else None

    def read(self) -> RunFacts:
        """The contents of run.json.

        Raises:
            UserError: it is absent, damaged, or of a newer form.
        """
        return RunFacts.read(self.path / RUN_FILE)

    def config(self) -> DictConfig:
        """The resolved config; beside a checkpoint of solo-learn's, its args.json.

        Raises:
            UserError: neither is there, as beside a checkpoint that was copied elsewhere; or it is
                damaged.
        """
        if not any((self.path / name).exists() for name in (CONFIG, ARGS)):
            raise UserError(
                f"{self.path} holds no config.yaml and no args.json: expected the folder of a run. "
                f"Evaluate a checkpoint where its run left it, or copy the whole folder."
            )
        args = None if (self.path / CONFIG).exists() else read_args(self.path)
        return load_config(self.path / CONFIG) if args is None else OmegaConf.create(args)

    def open(
        self,
        cfg: DictConfig,
        identity: Mapping[str, Any],
        origin: Origin,
        overwrite: bool = False,
        resume: bool = True,
    ) -> Found:
        """Claim the folder for this config; write config.yaml and run.json if it is new.

        Args:
            cfg: the resolved config.
            identity: what the numbers depend on; must equal that of a run that is there already.
            origin: method, host and split, stored in run.json.
            overwrite, resume: see :meth:`look`.

        Raises:
            UserError: the folder holds another config's run (with the keys that differ), files
                that are no run, or another process is writing there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self._holds_run() or (self.path / LOCK).exists()):
                refuse_foreign(self.path)  # before the lock leaves a file there
            self._lock = take_lock(self.path)
        except OSError as error:
            found = self._look_alone(identity, overwrite, resume)
            if found is Found.OVER:
                return found  # nothing is to be written
            raise UserError(
                f"output_dir: expected a folder that can be written, got {self.path} "
                f"({error.strerror}). Set output_dir to another."
            ) from None
        for folder in (self.path, self.checkpoints, self.path / "features"):
            sweep(folder)
        if self._holds_run():
            found = self.look(identity, overwrite, resume)
            if found is not Found.NEW:
                mend(self.path, cfg)
                return found
            clear(self.path)
        else:
            refuse_foreign(self.path)
        write_text(self.path / CONFIG, OmegaConf.to_yaml(cfg))
        self.checkpoints.mkdir(exist_ok=True)
        # Last, so that a folder with run.json has everything else.
        RunFacts.begin(origin, identity).write(self.path / RUN_FILE)
        return Found.NEW

    def _look_alone(self, identity: Mapping[str, Any], overwrite: bool, resume: bool) -> Found:
        """:meth:`look` in a folder that cannot be written."""
        try:
            return self.look(identity, overwrite, resume)
        except UserError:
            return Found.NEW

    def look(
        self, identity: Mapping[str, Any], overwrite: bool = False, resume: bool = True
    ) -> Found:
        """What every rank can decide by itself, without the lock: what is there?

        A run that has no checkpoint owns nothing: it is replaced.

        Args:
            identity: what the numbers depend on.
            overwrite: replace another config's run, and train a finished one anew. An interrupted
                run of this very config goes on all the same,
            resume: unless this is false.

        Raises:
            UserError: the folder holds another config's run.
        """
        if not self._holds_run():
            return Found.NEW
        there = self._facts(overwrite)
        if there is None or there.stopped == TRIAL:
            return Found.NEW
        is_same = not _differences(there, identity)
        if overwrite and (there.is_over or not is_same or not resume):
            return Found.NEW
        if is_same:
            return Found.OVER if there.is_over else Found.UNFINISHED
        if there.is_over or any(self.checkpoints.glob("*.ckpt")):
            raise self._other(there, identity)
        return Found.NEW

    def update(self, **facts: Any) -> None:
        """Add facts to run.json (the time of completion, images per second)."""
        dataclasses.replace(self.read(), **facts).write(self.path / RUN_FILE)

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _holds_run(self) -> bool:
        """Whether there is a run, also one whose run.json is gone: its checkpoint knows of it."""
        has_facts = (self.path / RUN_FILE).exists()
        return has_facts or facts_of_checkpoint(self.checkpoints) is not None

    def _facts(self, overwrite: bool) -> RunFacts | None:
        """Those of the run that is there; None where they are damaged and may be overwritten."""
        try:
            return self.read()
        except UserError as error:
            facts = facts_of_checkpoint(self.checkpoints)
            if facts is not None:
                return facts
            if overwrite:
                return None
            raise UserError(
                f"{error} No sound checkpoint of it is there either: add overwrite=true to start "
                f"anew, or set output_dir to a new folder."
            ) from None

    def _other(self, there: RunFacts, identity: Mapping[str, Any]) -> UserError:
        rows = _differences(there, identity)
        shown = "; ".join(rows[:5]) + (f"; and {len(rows) - 5} more" if len(rows) > 5 else "")
        text = (
            f"{self.path} holds another config's run ({shown}). Set output_dir (or name) to a new "
            f"folder, give the same config to continue that run, or overwrite=true to replace it."
        )
        before, after = there.identity.get("max_epochs"), identity.get("max_epochs")
        if len(rows) == 1 and isinstance(before, int) and (after or 0) > before:
            text += (
                f" To train that run on to {after} epochs: a new output_dir and "
                f"resume_from_checkpoint={self.path / LAST_CHECKPOINT}."
            )
        return UserError(text)


def _differences(there: RunFacts, identity: Mapping[str, Any]) -> list[str]:
    """In what the run that is there differs from one of this identity."""
    here = json.loads(json.dumps(identity, default=str))
    return differences(*comparable(there.identity, here))
