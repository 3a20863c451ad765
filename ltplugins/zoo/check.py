# SPDX-License-Identifier: MIT
"""A picture that anybody can make, and its features: how a copy of an entry shows that it works.

On the machine that stored them they come out again to the last bit; elsewhere other versions and
other instructions of the CPU leave the last digits open.
"""

import PIL
import timm
import torch
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.zoo.backbone import Backbone
from ltplugins.zoo.facts import Check

PICTURE = (
    "uint8 RGB, 40 pixels high, 30 wide: (7 * row + 13 * column + 29 * channel + row * column) "
    "mod 256"
)
_TOLERANCE = 1e-4  # of a feature's value, and absolutely, where the machine is another


def picture() -> Image.Image:
    """The picture of :data:`PICTURE`."""
    row, column, channel = torch.meshgrid(
        torch.arange(40), torch.arange(30), torch.arange(3), indexing="ij"
    )
    pixels = (7 * row + 13 * column + 29 * channel + row * column) % 256
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def check_of(backbone: Backbone) -> Check:
    """Compute what is stored with an entry: Float[D] of the picture, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            features = backbone.cpu()(backbone.transform(picture())[None])[0]
    finally:
        torch.set_num_threads(threads)
    return Check(
        PICTURE,
        [float(value) for value in features],
        torch.__version__,
        timm.__version__,
        PIL.__version__,
        torch.backends.cpu.get_cpu_capability(),
    )


def require_features(backbone: Backbone, stored: Check, name: str) -> str:
    """Hold a copy to the features that are stored with it.

    Args:
        backbone: of the copy.
        stored: with the entry.
        name: of the entry, for the message.

    Returns:
        How well they agree, in words.

    Raises:
        UserError: it gives other features.
    """
    found = check_of(backbone)
    if found.features == stored.features:
        return "features equal to the last bit"
    ours, theirs = torch.tensor(found.features), torch.tensor(stored.features)
    if ours.shape == theirs.shape:
        gap = float(((ours - theirs).abs() / theirs.abs().clamp(min=1)).max())
        if gap <= _TOLERANCE:
            return f"features equal to {gap:.0e}"
    raise UserError(
        f"{name}: its features of the check picture are not those that are stored with it. Fetch "
        f"it again, or compare the versions: torch {stored.torch} there, {found.torch} here."
    )
