# SPDX-License-Identifier: MIT
"""Damaged small files of a run's folder: what is known elsewhere is written anew."""

import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ltplugins.config.literal import refuse_interpolations
from ltplugins.core.errors import UserError, first_sentence
from ltplugins.core.files import write_text
from ltplugins.runs.checkpoint import origin_of, read_checkpoint
from ltplugins.runs.facts import RunFacts
from ltplugins.runs.places import RUN_FILE, own_checkpoints

log = logging.getLogger(__name__)

CONFIG = "config.yaml"


def mend(folder: Path, cfg: DictConfig) -> None:
    """Write anew what is damaged and known: this command's config, the checkpoint's facts.

    Args:
        folder: of a run with this config.
    """
    try:
        load_config(folder / CONFIG)
    except UserError as error:
        log.warning("%s It is written anew: nothing is lost.", error)
        write_text(folder / CONFIG, OmegaConf.to_yaml(cfg))
    try:
        RunFacts.read(folder / RUN_FILE)
    except UserError as error:
        facts = facts_of_checkpoint(folder / "checkpoints")
        assert facts is not None, "they were found before"
        log.warning(
            "%s It is written anew from the checkpoint; lost are when the run began, its "
            "versions, machine and speed.",
            error,
        )
        facts.write(folder / RUN_FILE)


def facts_of_checkpoint(checkpoints: Path) -> RunFacts | None:
    """What the newest sound checkpoint says of its run; None without one."""
    for path in own_checkpoints(checkpoints):
        try:
            meta = read_checkpoint(path).get("ltplugins", {})
            origin = origin_of(path, meta)
            if origin is not None and "identity" in meta:
                return RunFacts.begin(origin, meta["identity"])
        except UserError:
            continue
    return None


def load_config(path: Path) -> DictConfig:
    """Read a folder's config.yaml.

    Raises:
        UserError: it is gone, no YAML of a mapping, or has an interpolation.
    """
    try:
        cfg = OmegaConf.load(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is no YAML ({first_sentence(error)}).") from None
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{path} is damaged: expected a mapping, got {type(cfg).__name__}.")
    refuse_interpolations(OmegaConf.to_container(cfg), str(path))
    return cfg
