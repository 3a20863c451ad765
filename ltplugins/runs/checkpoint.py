# SPDX-License-Identifier: MIT
"""From a run folder or a checkpoint file back to its config and its weights."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltplugins.catalogue.files import CONFIG
from ltplugins.catalogue.store import PREFIX, entry_folder, is_zoo
from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError, first_sentence
from ltplugins.core.records import from_plain, read_json
from ltplugins.runs.entry import read_entry
from ltplugins.runs.facts import VERSION, Origin, Progress, RunFacts
from ltplugins.runs.parts import require_content
from ltplugins.runs.places import ARGS, LAST_CHECKPOINT, RUN_FILE, earlier_checkpoints, folder_of
from ltplugins.runs.seal import broken_seal

_DATA_MODULE = "LTDataModule"  # the key that Lightning gives the data's state: its class
SECOND_STAGES = ("balance", "finetune")  # blocks of a config


@dataclass
class TrainedRun:
    """A trained method, opened for evaluation or as a teacher.

    Attributes:
        path: the folder that results and the feature cache go to.
        checkpoint: the file.
        cfg: that it was trained with.
        origin: host, split and method, as the checkpoint has them; None for solo-learn's own.
        state: its whole ``state_dict``.
        epoch: completed epochs.
        progress: how far its training had come, and what was planned; None for solo-learn's own.
        is_finetuned: its state is a backbone and a classifier, without a method around them.
        is_entry: its state is a backbone alone, of an entry of the zoo.
        data_state: what its data module has kept, such as the chosen images of an OOD pool.
        small_stem: whether its backbone keeps the resolution up to its first stage; None where the
            checkpoint does not say it.
    """

    path: Path
    checkpoint: Path
    cfg: RunConfig
    origin: Origin | None
    state: dict[str, Tensor]
    epoch: int
    progress: Progress | None = None
    is_finetuned: bool = False
    is_entry: bool = False
    small_stem: bool | None = None
    data_state: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What results of it are called by."""
        return (self.origin and self.origin.label) or self.cfg.method

    @property
    def whole_progress(self) -> Progress | None:
        """Its progress with that of the first stage; None where the checkpoint does not say it."""
        stage_1 = self.origin.stage_1 if self.origin else None
        if self.progress is None:
            known = self.origin is not None and stage_1 is None
            return Progress(self.epoch, self.cfg.max_epochs, 0, 0) if known else None
        if stage_1 is None:
            return self.progress
        done, planned = (
            n + stage_1.epochs for n in (self.progress.epochs, self.progress.planned_epochs)
        )
        return dataclasses.replace(self.progress, epochs=done, planned_epochs=planned)


def require_run(path: Path) -> None:
    """Refuse a folder without a run.

    Raises:
        UserError: no such folder, or no run in it.
    """
    if not (path / RUN_FILE).exists():
        if (path / LAST_CHECKPOINT).exists():
            raise UserError(
                f"{path / RUN_FILE} is gone. Give the run's own command again, which writes it "
                f"anew, or give {path / LAST_CHECKPOINT}."
            )
        raise UserError(
            f"{path} holds no run: expected run.json and checkpoints/ in it. Give the "
            f"output_dir of a pretraining, for example runs/demo/simclr."
        )


def open_run(path: str | Path) -> TrainedRun:
    """Open a run folder (its last checkpoint), a ``.ckpt`` of ours or of solo-learn, or an entry.

    Of an entry (``zoo://NAME``, or its folder) results go below ``runs/zoo``.

    Raises:
        UserError: nothing there, no checkpoint yet, a file that cannot be opened, no config.
    """
    if is_zoo(path):
        return _of_entry(entry_folder(str(path)), str(path).removeprefix(PREFIX))
    path = Path(path)
    if is_entry_folder(path):
        return _of_entry(path, path.resolve().name)
    if path.is_dir():
        require_run(path)
        folder, file = path, path / LAST_CHECKPOINT
        if not file.exists():
            beside = earlier_checkpoints(file.parent)
            if beside:
                raise UserError(
                    f"{file} is gone. Beside it lies {beside[0].name}, of an earlier epoch: give "
                    f"that file, or give the run's own command again, which goes on from it."
                )
            if RunFacts.read(path / RUN_FILE).is_over:
                raise UserError(
                    f"{path} holds no weights: it was trained with checkpoint.enabled=false, or "
                    f"{LAST_CHECKPOINT} was removed. Train again with checkpoint.enabled=true, "
                    f"into a new output_dir."
                )
            raise UserError(f"{path} has no checkpoint yet: its first epoch is not complete.")
    elif path.is_file():
        folder, file = folder_of(path), path
    else:
        raise UserError(f"{path} does not exist. Give a run folder, a .ckpt file or zoo://NAME.")
    content = read_checkpoint(file)
    meta = content.get("ltplugins", {})
    cfg = _config_of(file, meta)
    origin = origin_of(file, meta)
    if "epoch" not in content:
        raise UserError(
            f"{file} holds weights alone, without the epoch: expected a checkpoint that a run has "
            f"written. backbone.pretrained takes weights."
        )
    epoch = content["epoch"] + 1
    if origin is not None and origin.stage_1 is not None:
        epoch += origin.stage_1.epochs
    return TrainedRun(
        folder,
        file,
        cfg,
        origin,
        content["state_dict"],
        epoch,
        progress=_progress_of(file, meta),
        small_stem=meta.get("small_stem"),
        is_finetuned="finetune" in meta.get("config", {}),
        data_state=content.get(_DATA_MODULE) or {},
    )


def is_entry_folder(path: Path) -> bool:
    """Whether a folder is an entry, and no run."""
    return (path / CONFIG).is_file() and not (path / RUN_FILE).exists()


def _of_entry(folder: Path, name: str) -> TrainedRun:
    found = read_entry(folder)
    return TrainedRun(
        Path("runs/zoo") / name,
        found.file,
        found.cfg,
        found.origin,
        found.state,
        found.epochs,
        is_entry=True,
        small_stem=found.small_stem,
    )


def open_finished(path: str | Path, stage: str, takes_checkpoint: bool = True) -> TrainedRun:
    """:func:`open_run` for a second stage: of a folder, a training that has come to its end.

    Args:
        path: of a run folder or a checkpoint.
        stage: what is to be done with it, a command's name.
        takes_checkpoint: whether it can be done with a checkpoint alone.

    Raises:
        UserError: as :func:`open_run`; the run is not finished.
    """
    run = open_run(path)
    is_folder = Path(path).is_dir() and not run.is_entry
    if is_folder and not RunFacts.read(Path(path) / RUN_FILE).is_over:
        otherwise = f"; or give its checkpoint, {run.checkpoint}, to start from what it is now"
        raise UserError(
            f"{path} is not finished: it has {run.epoch} epochs. Give its config to ltplugins "
            f"pretrain again, which continues it, then {stage}{otherwise * takes_checkpoint}."
        )
    return run


def read_checkpoint(file: Path) -> dict[str, Any]:
    """The content of a checkpoint file, on the CPU.

    Raises:
        UserError: a file that cannot be opened, whose bytes are not those that were written, or
            that is no checkpoint.
    """
    try:
        damage = broken_seal(file)
        if damage is not None:
            raise UserError(f"{file} is damaged: {damage}.{_others(file)}")
        # Tensors and plain values only: a checkpoint from elsewhere must not run code.
        content = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{file} cannot be opened as a checkpoint ({type(error).__name__}: "
            f"{first_sentence(error)}).{_others(file)}"
        ) from error
    return require_content(content, file)


def _others(file: Path) -> str:
    """The way out that lies beside a damaged checkpoint of ours."""
    beside = [path for path in earlier_checkpoints(file.parent) if path != file]
    return f" Beside it lies {beside[0].name}, of an earlier epoch." if beside else ""


def origin_of(file: Path, meta: dict[str, Any]) -> Origin | None:
    """Host, split and method, as a checkpoint of ours has them; None in one of solo-learn's."""
    names = {field.name for field in dataclasses.fields(Origin)}
    own = {key: value for key, value in meta.items() if key in names}
    return from_plain(Origin, own, file, VERSION) if own else None


def _progress_of(file: Path, meta: dict[str, Any]) -> Progress | None:
    found = meta.get("progress")
    return None if found is None else from_plain(Progress, found, file, VERSION)


def _config_of(file: Path, meta: dict[str, Any]) -> RunConfig:
    if "segment" in meta.get("config", {}):
        raise UserError(
            f"{file} is a segmentation (ltplugins segment): expected a checkpoint of a "
            f"pretraining. Its numbers are in its folder's results.json; give the run that it "
            f"started from, {meta['config']['segment']['run']}."
        )
    if "config" in meta:
        # Of a second stage it says how, in a block that no other config has.
        return resolve({k: v for k, v in meta["config"].items() if k not in SECOND_STAGES})
    stored = read_args(file.parent)
    if stored is None:
        raise UserError(
            f"{file} holds no config, and there is no args.json of solo-learn's beside it."
        )
    if "pretrained_feature_extractor" in stored:
        raise UserError(
            f"{file} is a linear classifier of solo-learn's main_linear.py: expected a checkpoint "
            f"of a pretraining. Give the one that it was trained on, "
            f"{stored['pretrained_feature_extractor']}."
        )
    return resolve(stored)


def read_args(folder: Path) -> dict[str, Any] | None:
    """The config that solo-learn's Checkpointer has put beside its checkpoints; None without one.

    Raises:
        UserError: a file that is no JSON mapping.
    """
    path = folder / ARGS
    if not path.exists():
        return None
    stored = read_json(path)
    if not isinstance(stored, dict):
        raise UserError(f"{path}: expected a mapping, got {type(stored).__name__}.")
    stored.pop("wandb_run_id", None)
    return stored
