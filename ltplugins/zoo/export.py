# SPDX-License-Identifier: MIT
"""From a model to a folder that other programs open: timm, torchvision's users, ONNX runtimes.

What is written is opened again and its features compared before the folder gets its name, so that
a folder that is there is one that works.
"""

import dataclasses
import os
import shutil
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import save_file

from ltplugins import __version__
from ltplugins.catalogue.files import CONFIG, FACTS, WEIGHTS
from ltplugins.core.errors import UserError
from ltplugins.core.files import atomic_folder, expanded, sha256, write_json, write_text
from ltplugins.core.records import to_plain
from ltplugins.eval.features import preserved_rng
from ltplugins.zoo.backbone import Backbone
from ltplugins.zoo.entry import ONNX, open_entry, seen_config, timm_config
from ltplugins.zoo.facts import EntryFacts
from ltplugins.zoo.load import load_backbone
from ltplugins.zoo.onnx import require_onnx, write_onnx
from ltplugins.zoo.solo import CHECKPOINT, write_solo
from ltplugins.zoo.usage import usage

Form = Literal["timm", "torchvision", "onnx", "solo"]
_IMAGES = 4  # of noise, which both are shown


def export(
    source: str | os.PathLike[str], folder: str | os.PathLike[str], forms: Collection[Form] = ()
) -> Path:
    """Write a model in the forms that are asked for.

    Args:
        source: whatever ``load_backbone`` opens.
        folder: new, or empty.
        forms: ``timm`` (where none is given): an entry; ``torchvision``: weights of torchvision's
            names, also where the stem is one that timm does not have; ``onnx``; ``solo``: a
            checkpoint for solo-learn's main_linear.py.

    Returns:
        The folder.

    Raises:
        UserError: the folder is taken or cannot be written, an extra is missing, a model that
            cannot be opened, or one that a form cannot express.
    """
    chosen = frozenset(forms or {"timm"})
    path = expanded(folder)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists: expected a new folder for the export. Give another one.")
    if "onnx" in chosen:
        require_onnx()
    try:
        with atomic_folder(path) as tmp:
            write_forms(load_backbone(source), tmp, chosen)
    except OSError as error:
        raise UserError(
            f"{path}: expected a folder that can be written ({error.strerror}). Give another one."
        ) from None
    return path


def write_entry(backbone: Backbone, folder: Path) -> None:
    """Write a model that is open already as timm reads it, into a new folder.

    Raises:
        UserError: timm cannot express it.
    """
    folder.mkdir()
    write_forms(backbone, folder, frozenset({"timm"}))


def round_to_half(backbone: Backbone) -> None:
    """Give a model the weights that float16 can express, in place; it goes on computing in float32.

    Raises:
        UserError: a weight is larger than float16 reaches.
    """
    for key, value in backbone.net.state_dict().items():
        if value.is_floating_point():
            value.copy_(value.half())
            if not value.isfinite().all():
                raise UserError(
                    f"--half: {key} of {backbone.provenance.label} has values beyond 65504, where "
                    f"float16 ends. Leave --half out."
                )


def write_forms(
    backbone: Backbone, folder: Path, forms: AbstractSet[str], half: bool = False
) -> None:
    """Write a model into a folder that is there, and hold what was written to it.

    Args:
        backbone: the model.
        folder: where its files go.
        forms: see :func:`export`.
        half: keep the weights in float16, to which they are rounded already.

    Raises:
        UserError: a form cannot express it.
    """
    config = _config(backbone, forms)
    if forms & {"timm", "torchvision"}:
        tensors = {key: value.contiguous() for key, value in backbone.net.state_dict().items()}
        if half:
            tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
        # One key: safetensors writes several in any order, and the hash would not be the same.
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        file = folder / WEIGHTS
        config[FACTS] |= {"sha256": sha256(file), "size": file.stat().st_size}
    write_json(folder / CONFIG, config)
    if (folder / WEIGHTS).exists():  # which safetensors lets nobody else read
        shutil.copymode(folder / CONFIG, folder / WEIGHTS)
    if "onnx" in forms:
        write_onnx(backbone, folder / ONNX)
    if "solo" in forms:
        write_solo(backbone, folder / CHECKPOINT)
    write_text(folder / "README.md", usage(backbone, forms))
    with preserved_rng():
        if "timm" in forms:
            _check_timm(backbone, folder)
        if forms & {"timm", "torchvision"}:
            _compare(backbone, open_entry(folder))


def _config(backbone: Backbone, forms: Collection[str]) -> dict[str, Any]:
    """``config.json``, its forms refused where they cannot express the network."""
    by_torchvision = backbone.architecture.torchvision if "torchvision" in forms else None
    config = timm_config(backbone) if "timm" in forms else seen_config(backbone)
    provenance = backbone.provenance
    facts = EntryFacts(
        ltplugins=__version__,
        num_features=backbone.num_features,
        torchvision=None if "timm" in forms else by_torchvision,
        small_stem=backbone.architecture.small_stem,
        **{f.name: getattr(provenance, f.name) for f in dataclasses.fields(provenance)},
    )
    return {**config, FACTS: to_plain(facts)}


def _check_timm(backbone: Backbone, folder: Path) -> None:
    try:
        found = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as error:  # whatever timm or the network makes of it
        raise UserError(
            f"{backbone.architecture.name} cannot be written for timm, which builds another "
            f"network of its config ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}). Take --onnx."
        ) from None
    _compare(backbone, found)


def _compare(backbone: Backbone, found: torch.nn.Module) -> None:
    images = backbone.noise(_IMAGES)
    with torch.no_grad():
        if not torch.equal(found(images), backbone(images)):
            raise UserError(
                f"{backbone.architecture.name} cannot be written in this form: opened again, it "
                f"gives other features. Take --onnx."
            )
