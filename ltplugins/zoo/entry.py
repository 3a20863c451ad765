# SPDX-License-Identifier: MIT
"""An entry: a folder of ``config.json`` and ``model.safetensors``, as timm reads it.

Our own facts stand at the root of ``config.json`` under ``ltplugins``, where timm ignores them.
Where timm has no such network (torchvision's ResNets with the small stem) the file names no
architecture, so that timm refuses it and builds no other, and the facts say what to build.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from ltplugins.catalogue.files import CONFIG, FACTS, WEIGHTS, read_config
from ltplugins.core.errors import UserError, nearest
from ltplugins.core.records import from_plain
from ltplugins.host.builtin.backbones import build_backbone
from ltplugins.host.stem import apply_stem
from ltplugins.runs.entry import read_weights
from ltplugins.zoo.backbone import Architecture, Backbone, Provenance
from ltplugins.zoo.facts import EntryFacts
from ltplugins.zoo.preprocess import timm_keys, timm_transform

ONNX = "model.onnx"
# Arguments of timm's factory that would fetch, read or build something else.
_NOT_OF_A_MODEL = (
    "cache_dir",
    "checkpoint_path",
    "features_only",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
)


def timm_config(backbone: Backbone) -> dict[str, Any]:
    """What ``config.json`` says to timm; rates of dropout are left out.

    Raises:
        UserError: timm has no such network, or it is built of what JSON cannot hold.
    """
    name = backbone.architecture.timm.partition(".")[0]
    known = get_pretrained_cfg(name)
    layers = {
        key: getattr(known, key)
        for key in ("first_conv", "classifier", "fixed_input_size")
        if getattr(known, key, None) is not None
    }
    built = {k: v for k, v in backbone.architecture.kwargs.items() if not _is_drop_rate(k)}
    try:
        kwargs = json.loads(json.dumps(built))
    except TypeError as error:
        raise UserError(f"backbone.kwargs of {name} cannot be written as JSON: {error}.") from None
    seen = seen_config(backbone)
    return {
        "architecture": name,
        "num_classes": 0,
        **({"model_args": kwargs} if kwargs else {}),
        **seen,
        "pretrained_cfg": {**seen["pretrained_cfg"], "num_classes": 0, **layers},
    }


def _is_drop_rate(key: str) -> bool:
    """Whether the argument says what a training leaves out, as ``patch_drop_rate``.

    It is the training's and not the network's: who trains an entry on chooses anew.
    """
    return "drop" in key and key.endswith("_rate")


def seen_config(backbone: Backbone) -> dict[str, Any]:
    """What holds of any network: its width, and how it sees a picture."""
    seen = timm_keys(backbone.transform)
    return {"num_features": backbone.num_features, "pretrained_cfg": seen}


def open_entry(folder: Path) -> Backbone:
    """Open an entry, of ours or any other that timm reads; nothing is executed or unpickled.

    Raises:
        UserError: a file is absent or damaged, an unknown architecture, weights of another one.
    """
    config = read_config(folder)
    block = config.get(FACTS)
    facts = None
    if block is not None:
        facts = from_plain(EntryFacts, block, folder / CONFIG, EntryFacts.FORM)
    architecture, net, num_features = _build(folder, config, facts)
    weights = read_weights(folder / WEIGHTS, None if facts is None else facts.sha256)
    skipped = _fill(net, weights, folder, architecture.name)
    provenance = Provenance(f"{architecture.name} of {folder}")
    if facts is not None:
        provenance = Provenance(facts.label, facts.dataset, facts.seed, facts.epochs, facts.origin)
    seen = timm_transform(_mapping(config, "pretrained_cfg", folder), str(folder / CONFIG))
    return Backbone(net, seen, num_features, architecture, provenance, skipped)


def _build(
    folder: Path, config: Mapping[str, Any], facts: EntryFacts | None
) -> tuple[Architecture, nn.Module, int]:
    if facts is not None and facts.torchvision is not None:
        net, num_features = build_backbone(facts.torchvision, {})
        apply_stem(net, facts.small_stem)
        return Architecture(facts.torchvision, {}, facts.small_stem), net, num_features
    name = config.get("architecture")
    if name is None:
        raise UserError(
            f"{folder / CONFIG} names no architecture: expected one of timm's. A folder with "
            f"{ONNX} alone is opened by onnxruntime."
        )
    if not isinstance(name, str) or ":" in name or not timm.is_model(name):
        raise UserError(
            f"{folder / CONFIG}: architecture: expected a name of timm's, got {name!r}."
            f"{nearest(str(name), timm.list_models())}"
        )
    kwargs = dict(_mapping(config, "model_args", folder))
    strange = sorted(set(kwargs) & set(_NOT_OF_A_MODEL))
    if strange:
        raise UserError(
            f"{folder / CONFIG}: model_args.{strange[0]}: expected arguments of the network "
            f"alone. Remove the key."
        )
    kwargs.pop("num_classes", None)  # timm's own files have it; the head is left out here
    try:
        net = timm.create_model(name, num_classes=0, **kwargs)
    except Exception as error:  # whatever a network makes of wrong arguments
        raise UserError(
            f"{folder / CONFIG}: {name} cannot be built with model_args {kwargs} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:160]})."
        ) from None
    width: Any = getattr(net, "head_hidden_size", None) or net.num_features
    return Architecture(name, kwargs, is_timm=True), net, width


def _fill(net: nn.Module, weights: Mapping[str, Tensor], folder: Path, name: str) -> list[str]:
    """Load the weights; return the keys that the network does not have, such as a head's."""
    own = net.state_dict()
    missing = [key for key in own if key not in weights]
    other = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if missing or other:
        raise UserError(
            f"the weights of {folder} are not those of {name}: {len(missing)} keys missing "
            f"({', '.join(missing[:3])}), {len(other)} of another shape ({', '.join(other[:3])})."
        )
    net.load_state_dict({key: weights[key] for key in own})
    return sorted(weights.keys() - own.keys())


def _mapping(config: Mapping[str, Any], key: str, folder: Path) -> Mapping[str, Any]:
    found = config.get(key, {})
    if not isinstance(found, Mapping):
        raise UserError(
            f"{folder / CONFIG}: {key}: expected a block of keys, got {type(found).__name__}."
        )
    return found
