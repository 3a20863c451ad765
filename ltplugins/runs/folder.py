# SPDX-License-Identifier: MIT
"""A run's folder: what was run, with what, and what came out. One run, one folder.

config.yaml   the resolved config          run.json     versions, split, host, command line
metrics.csv   every logged metric          checkpoints/ last.ckpt (and epoch=N.ckpt)
results.json  the evaluation               .lock        held while a process writes here
"""

import dataclasses
import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from ltplugins.config.identity import differences, identity_hash
from ltplugins.core.errors import UserError
from ltplugins.core.files import write_text
from ltplugins.runs.checkpoint import LAST_CHECKPOINT, RUN_FILE, require_run
from ltplugins.runs.facts import Origin, RunFacts


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

    def read(self) -> RunFacts:
        """The contents of run.json.

        Raises:
            UserError: it is absent, damaged, or of a newer form.
        """
        return RunFacts.read(self.path / RUN_FILE)

    def config(self) -> DictConfig:
        """The resolved config."""
        cfg = OmegaConf.load(self.path / "config.yaml")
        assert isinstance(cfg, DictConfig)
        return cfg

    def open(self, cfg: DictConfig, identity: Mapping[str, Any], origin: Origin) -> bool:
        """Claim the folder for this config; write config.yaml and run.json if it is new.

        Returns:
            Whether its run is finished.

        Args:
            cfg: the resolved config.
            identity: what the numbers depend on; must equal that of a run that is there already.
            origin: method, host and split, stored in run.json.

        Raises:
            UserError: the folder holds another config's run (with the keys that differ), files
                that are no run, or another process is writing there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"output_dir: expected a folder that can be made, got {self.path} "
                f"({error.strerror}). Set output_dir to another."
            ) from None
        self._acquire_lock()
        if (self.path / RUN_FILE).exists():
            return self.look(identity)
        # A process killed in this very function leaves the first two; they are written again.
        ours = {".lock", "config.yaml", "checkpoints"}
        foreign = [p.name for p in self.path.iterdir() if p.name not in ours]
        foreign += [p.name for p in self.checkpoints.glob("*")]
        if foreign:
            raise UserError(
                f"{self.path} is not empty and holds no run (found {', '.join(foreign[:3])}). "
                f"Set output_dir to a new folder."
            )
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(cfg))
        self.checkpoints.mkdir(exist_ok=True)
        # Last, so that a folder with run.json has everything else.
        RunFacts.begin(origin, identity).write(self.path / RUN_FILE)
        return False

    def look(self, identity: Mapping[str, Any]) -> bool:
        """What every rank can decide by itself, without the lock: is this run finished?

        Raises:
            UserError: the folder holds another config's run.
        """
        if not (self.path / RUN_FILE).exists():
            return False
        self._refuse_other(identity)
        return self.read().finished is not None

    def update(self, **facts: Any) -> None:
        """Add facts to run.json (the time of completion, images per second)."""
        dataclasses.replace(self.read(), **facts).write(self.path / RUN_FILE)

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _refuse_other(self, identity: Mapping[str, Any]) -> None:
        there = self.read()
        if there.identity_hash == identity_hash(identity):
            return
        rows = differences(there.identity, json.loads(json.dumps(identity, default=str)))
        shown = "; ".join(rows[:5]) + (f"; and {len(rows) - 5} more" if len(rows) > 5 else "")
        raise UserError(
            f"{self.path} holds another config's run ({shown}). Set output_dir (or name) to a new "
            f"folder, or give the same config to continue that run."
        )

    def _acquire_lock(self) -> None:
        self._lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held until close()
        try:
            # A record lock, not flock: loader workers forked later must not hold it.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise UserError(
                f"another process is writing to {self.path}. Wait for it, or set output_dir."
            ) from None
