# SPDX-License-Identifier: MIT
"""``ltplugins pretrain --multirun``: train and evaluate every member, then one table of all.

Hydra's launcher (basic, joblib, submitit) calls :func:`run_member`; each member trains in a process
of its own, so that one that fails, or is killed, takes no other with it. The same command again
skips what is finished and continues what is not.

    <sweep>/<member>/         a run folder            <sweep>/logs/<member>.log   what it said
    <sweep>/report.html, .md  the comparison          <sweep>/logs/<member>.failed  why it failed
"""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltplugins.config.identity import differences, identity
from ltplugins.core.console import make_console
from ltplugins.core.door import guarded
from ltplugins.core.errors import UserError
from ltplugins.core.files import write_text
from ltplugins.eval.results import Results
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.command import quote
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.launch import QUIET, run_hydra
from ltplugins.stages.logs import set_up_logging
from ltplugins.stages.sweep import Member, Sweep, plan
from ltplugins.training.faults.ranks import PARENT

log = logging.getLogger(__name__)
CHILD = [sys.executable, "-m", "ltplugins.cli", "pretrain"]
# Parts of a run's identity that are known only once its data are read.
_OF_THE_DATA = ("split_hash", "data_hash", "ood_hash", "data.num_samples", "data.num_classes")


def multirun(arguments: Sequence[str], config_name: str) -> None:
    """Run a sweep from its command line and end the process with code 1 if a member failed.

    Raises:
        UserError: a command that makes no sweep, before anything is trained.
    """
    if "LOCAL_RANK" in os.environ:
        raise UserError(
            "--multirun starts its members itself: run it once, without torchrun, and set "
            "devices=N for members of N processes."
        )
    sweep = plan(arguments, config_name)
    compose_packaged("multirun", sweep.launcher)  # a launcher that there is not, before any folder
    console = make_console(stderr=True)
    console.print(f"sweep of {len(sweep.members)} runs in {sweep.folder}", highlight=False)
    (sweep.folder / "logs").mkdir(parents=True, exist_ok=True)
    for member in sweep.members:
        _failure(sweep, member).unlink(missing_ok=True)
    _launch(sweep)
    if not summarise(sweep):
        raise SystemExit(1)


def _launch(sweep: Sweep) -> None:
    """Hand the members' numbers to Hydra's launcher."""

    def task(cfg: DictConfig) -> None:
        run_member(sweep, int(cfg.member))

    given = {word.partition("=")[0] for word in sweep.launcher}
    ours = {f"hydra.sweep.dir={quote(str(sweep.folder))}", "hydra.sweep.subdir=.", *QUIET}
    words = [word for word in sorted(ours) if word.partition("=")[0] not in given]
    numbers = ",".join(str(i) for i in range(len(sweep.members)))
    command = sys.argv
    sys.argv = ["ltplugins", "--multirun", f"member={numbers}", *words, *sweep.launcher]
    try:
        run_hydra(task, "multirun")
    finally:
        sys.argv = command
    set_up_logging()


def run_member(sweep: Sweep, number: int) -> None:
    """Train and evaluate one member; what goes wrong is written down, never raised."""
    set_up_logging()
    member = sweep.members[number]
    console = make_console(stderr=True)
    console.print(f"[{number + 1}/{len(sweep.members)}] {member.name}", style="bold")
    try:
        if is_finished(sweep, member):
            log.info("%s is complete: nothing to train.", member.name)
        else:
            _train(sweep, member)
        _evaluate(sweep, member)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else repr(error)
        if not isinstance(error, UserError):
            with open(_log(sweep, member), "a", encoding="utf-8") as f:
                f.write(traceback.format_exc())
        write_text(_failure(sweep, member), reason + "\n")
        log.error("%s failed: %s", member.name, reason)


def is_finished(sweep: Sweep, member: Member) -> bool:
    """Whether the member's folder holds this very run, complete."""
    run = RunFolder(sweep.folder / member.name)
    if not (run.path / "run.json").exists() or run.last_checkpoint is None:
        return False
    facts = run.read()
    there = facts.identity
    here = json.loads(json.dumps(identity(member.cfg, there["world_size"]), default=str))
    rows = differences(there, here)
    return facts.is_over and all(row.partition(":")[0] in _OF_THE_DATA for row in rows)


def _train(sweep: Sweep, member: Member) -> None:
    """Train in a process of its own; its output goes to the terminal and to the log.

    Raises:
        UserError: it ended with an error, and which.
    """
    command = [*CHILD, *member.arguments(sweep.folder)]
    prefix = f"[{member.name}] " if sweep.launcher else ""
    with (
        open(_log(sweep, member), "w", encoding="utf-8") as f,
        subprocess.Popen(
            command,
            env={**os.environ, PARENT: str(os.getpid())},  # it does not outlive this process
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                f.write(line)
                f.flush()
                sys.stderr.write(prefix + line)
                sys.stderr.flush()
            code = process.wait()
        except BaseException:  # Ctrl-C, or the launcher's own end
            process.kill()
            raise
    if code:
        raise UserError(reason_of(code, _log(sweep, member).read_text(encoding="utf-8")))


def reason_of(code: int, output: str) -> str:
    """Why a member ended: its error message, its signal, or its last line."""
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}."
    head, mark, message = output.rpartition("error: ")
    if mark and (not head or head.endswith("\n")):
        return " ".join(message.split())
    lines = [line for line in output.splitlines() if line.strip()]
    return f"exit code {code}: {lines[-1] if lines else 'it said nothing'}"


def _evaluate(sweep: Sweep, member: Member) -> None:
    """Evaluate with the member's ``eval`` block, unless that is done already."""
    from ltplugins.core.schema import parse
    from ltplugins.eval.options import EvalConfig
    from ltplugins.stages.evaluate import evaluate

    run = RunFolder.existing(sweep.folder / member.name)
    cfg = sweep.evaluation.copy()
    cfg.run = str(run.path)
    if member.cfg.eval is not None:
        cfg.eval = member.cfg.eval
    if member.cfg.trainer.get("accelerator") == "cpu":
        cfg.device = "cpu"
    options = parse(EvalConfig, OmegaConf.to_container(cfg.eval, resolve=True), "eval")  # type: ignore[arg-type]
    if not _is_evaluated(run, dataclasses.asdict(options)):
        evaluate(cfg)


def _is_evaluated(run: RunFolder, options: dict[str, Any]) -> bool:
    if not run.results.exists() or run.last_checkpoint is None:
        return False
    if run.results.stat().st_mtime_ns < run.last_checkpoint.stat().st_mtime_ns:
        return False
    return Results.read(run.results).options == options


def summarise(sweep: Sweep) -> bool:
    """Compare the members that came through, name those that did not; True if all did."""
    from ltplugins.stages.report import report

    console = make_console(stderr=True)
    failed = {m.name: _what_failed(sweep, m) for m in sweep.members}
    failed = {name: reason for name, reason in failed.items() if reason}
    done = {str(sweep.folder / m.name): m.row for m in sweep.members if m.name not in failed}
    if done:
        report(list(done), sweep.folder, title=f"Sweep {sweep.folder.name}", rows=done)
    for name, reason in failed.items():
        console.print(f"failed: {name}: {reason}", style="red", markup=False, highlight=False)
    if failed:
        console.print(
            f"{len(failed)} of {len(sweep.members)} members failed; what they said is in "
            f"{sweep.folder / 'logs'}. The same command tries them again and leaves the others.",
            highlight=False,
        )
    return not failed


def _what_failed(sweep: Sweep, member: Member) -> str | None:
    if _failure(sweep, member).exists():
        return _failure(sweep, member).read_text(encoding="utf-8").strip()
    run = RunFolder(sweep.folder / member.name)
    if not run.results.exists() or not is_finished(sweep, member):
        return "it has not come to its end; the launcher's process was ended."
    return None


def _log(sweep: Sweep, member: Member) -> Path:
    return sweep.folder / "logs" / f"{member.name}.log"


def _failure(sweep: Sweep, member: Member) -> Path:
    return sweep.folder / "logs" / f"{member.name}.failed"


def main(arguments: Sequence[str], config_name: str) -> None:
    """Entry point: the arguments hold ``--multirun``."""
    set_up_logging()
    continues = "interrupted; the same command continues the sweep."
    guarded(lambda: multirun(arguments, config_name), stopped=continues)
