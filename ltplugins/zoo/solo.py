# SPDX-License-Identifier: MIT
"""A backbone as a checkpoint that solo-learn's ``main_linear.py`` opens: tensors, and nothing else.

solo-learn builds the network by ``backbone.name`` of its own command line and loads with
``strict=False``, so that a wrong name goes unnoticed there: the folder's page has the right words.
"""

from pathlib import Path
from typing import Any

import torch

from ltplugins.host.builtin.backbones import TIMM_ALIASES
from ltplugins.zoo.backbone import Backbone

CHECKPOINT = "backbone.ckpt"  # main_linear.py takes .ckpt, .pth and .pt
_OWN = ("resnet18", "resnet50", "convnext_tiny", "vit_tiny", "vit_small", "vit_base")


def write_solo(backbone: Backbone, file: Path) -> None:
    """Write the weights under ``backbone.``, as solo-learn's own checkpoints have them."""
    state = backbone.net.state_dict()
    content = {f"backbone.{key}": value.contiguous() for key, value in state.items()}
    torch.save({"state_dict": content, "epoch": backbone.provenance.epochs or 0}, file)


def solo_name(backbone: Backbone) -> tuple[str, bool]:
    """The name that solo-learn builds the network by, and whether it knows it by itself.

    Of timm's other networks it learns when it is started by ``python -m ltplugins.run``.
    """
    made = backbone.architecture
    aliases = {build.__name__: name for name, build in TIMM_ALIASES.items()}
    name = aliases.get(made.name, made.name)
    return name, name in _OWN


def solo_page(backbone: Backbone) -> str:
    """The words of a command line for solo-learn, from inside its checkout."""
    name, is_own = solo_name(backbone)
    made = backbone.architecture
    start = "python" if is_own else "python -m ltplugins.run"
    words: dict[str, Any] = {
        "pretrained_feature_extractor": f"PATH/TO/{CHECKPOINT}",
        "backbone.name": name,
        **{f"+backbone.kwargs.{key}": _word(value) for key, value in made.kwargs.items()},
    }
    given = " \\\n    ".join(f"{key}={value}" for key, value in words.items())
    stem = (
        f"\nsolo-learn shows it `custom` images at 224 pixels and CIFAR's at 32; it was trained at "
        f"{backbone.size}.\n"
    )
    if made.small_stem:
        stem += (
            "\nIts small stem is what solo-learn builds for `data.dataset=cifar10` or `cifar100` "
            "alone.\n"
        )
    return (
        f"## solo-learn\n\n```bash\n{start} main_linear.py --config-path PATH --config-name FILE "
        f"\\\n    {given}\n```\n{stem}"
    )


def _word(value: Any) -> Any:
    return f"'{list(value)}'".replace(" ", "") if isinstance(value, list | tuple) else value
