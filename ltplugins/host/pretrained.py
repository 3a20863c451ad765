# SPDX-License-Identifier: MIT
"""``backbone.pretrained``: weights to start from, of torchvision, timm, or a file.

Files: ``.safetensors``; ``.pth``, ``.pt``, ``.bin`` of a bare ``state_dict`` or one within; a
``.ckpt`` of solo-learn's or of a run here; a run folder; an entry of a zoo, ``zoo://NAME``. Only
tensors and plain values are read.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from ltplugins.catalogue.store import entry_folder, is_zoo
from ltplugins.core.errors import UserError, first_sentence
from ltplugins.core.files import expanded

log = logging.getLogger(__name__)

_WITHIN = ("state_dict", "model_state_dict", "model", "teacher", "student")
_PREFIXES = ("", "backbone.", "module.", "module.backbone.", "encoder.", "module.encoder_q.")


def load_pretrained(model: Any, cfg: Any) -> None:
    """Give a method's backbone, and its momentum twin, the weights that the config names.

    Args:
        model: a host's method.
        cfg: its config; without ``backbone.pretrained`` nothing is done.

    Raises:
        UserError: no such weights, no network to fetch them, or weights of another backbone.
    """
    where = OmegaConf.select(cfg, "backbone.pretrained")
    if not where:
        return
    name = str(cfg.backbone.name)
    kwargs = dict(OmegaConf.select(cfg, "backbone.kwargs") or {})
    if where is True:
        state = _of_library(name, kwargs, model.backbone)
    else:
        state = _of_file(_place(str(where)))
    source = "its library" if where is True else str(where)
    _load(model.backbone, state, name, source)
    twin = getattr(model, "momentum_backbone", None)
    if twin is not None:
        twin.load_state_dict(model.backbone.state_dict())


def _of_library(name: str, kwargs: dict[str, Any], backbone: nn.Module) -> Mapping[str, Tensor]:
    try:
        return library_weights(name, kwargs, backbone)
    except UserError as error:
        raise UserError(
            f"backbone.pretrained: {error} Without a network give a file that is here: "
            f"backbone.pretrained=PATH (.pth, .safetensors, .ckpt)."
        ) from error


def library_weights(name: str, kwargs: dict[str, Any], backbone: nn.Module) -> Mapping[str, Tensor]:
    """Fetch, or take from the cache, what torchvision or timm has.

    Args:
        name: of the backbone, as :func:`build_backbone` takes it.
        kwargs: that it was built with.
        backbone: whose image size weights of a ViT are fitted to.

    Raises:
        UserError: there are none, or no network.
    """
    import timm
    import torchvision

    from ltplugins.host.builtin.backbones import RESNETS, TIMM_ALIASES

    try:
        if name in RESNETS:
            weights: Any = torchvision.models.get_model_weights(name).DEFAULT
            return weights.get_state_dict(progress=False)
        full = TIMM_ALIASES[name].__name__ if name in TIMM_ALIASES else name
        kwargs = {k: v for k, v in kwargs.items() if k != "patch_size"}
        size = getattr(getattr(backbone, "patch_embed", None), "img_size", None)
        if size is not None:
            kwargs["img_size"] = size
        return timm.create_model(full, pretrained=True, num_classes=0, **kwargs).state_dict()
    except Exception as error:  # of urllib, httpx, huggingface_hub, timm: each has its own
        raise UserError(
            f"no weights of {name} could be had ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:160]})."
        ) from error


def _place(where: str) -> Path:
    """The path of a file or folder; of an entry its weights, fetched where they are not here."""
    if not is_zoo(where):
        return Path(where)
    try:
        return entry_folder(where) / "model.safetensors"
    except UserError as error:
        raise UserError(f"backbone.pretrained: {error}") from None


def _of_file(path: Path) -> Mapping[str, Tensor]:
    path = expanded(path)
    file = path / "checkpoints/last.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"backbone.pretrained: no such file: {file}. Expected weights (.pth, .safetensors, "
            f".ckpt), a run folder, zoo://NAME, or true for those of torchvision or timm."
        )
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, zip and safetensors
        raise UserError(
            f"backbone.pretrained: {file} cannot be opened as weights ({type(error).__name__}: "
            f"{first_sentence(error)})."
        ) from error
    while isinstance(content, Mapping):
        inner = next((content[k] for k in _WITHIN if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            return {k: v for k, v in content.items() if isinstance(v, Tensor)}
        content = inner
    raise UserError(f"backbone.pretrained: {file} holds no state_dict.")


def _load(backbone: nn.Module, state: Mapping[str, Tensor], name: str, source: str) -> None:
    own = backbone.state_dict()
    by_prefix = {
        prefix: {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        for prefix in _PREFIXES
    }
    found = max(by_prefix.values(), key=lambda weights: len(own.keys() & weights.keys()))
    missing = [k for k in own if k not in found]
    other = [k for k in own if k in found and own[k].shape != found[k].shape]
    if missing or other:
        stem = " Its stem is another: backbone.small_stem=false takes the large one." * (
            bool(other) and all(key.startswith("conv1") for key in other)
        )
        raise UserError(
            f"backbone.pretrained: the weights of {source} are not those of {name}: "
            f"{len(missing)} keys missing ({', '.join(missing[:3])}), {len(other)} of another "
            f"shape ({', '.join(other[:3])}).{stem}"
        )
    backbone.load_state_dict({k: found[k] for k in own})
    rest = sorted(found.keys() - own.keys())
    log.info(
        "backbone %s starts from the weights of %s%s", name, source,
        f"; left out: {len(rest)} keys ({', '.join(rest[:3])})" if rest else "",
    )  # fmt: skip
