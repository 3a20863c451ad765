# SPDX-License-Identifier: MIT
"""``README.md`` of an exported folder: the lines that open it where this package is not."""

from collections.abc import Collection

from ltplugins.catalogue.files import WEIGHTS
from ltplugins.core.markdown import plain
from ltplugins.zoo.backbone import Backbone
from ltplugins.zoo.entry import ONNX
from ltplugins.zoo.solo import solo_page

TIMM = """```python
import timm
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
features = model(transform(Image.open("picture.png").convert("RGB"))[None])
```
"""

LOAD_BACKBONE = """timm has no such network; `ltplugins` opens it:

```python
import ltplugins

model = ltplugins.load_backbone("zoo://{name}")
features = model(model.transform("picture.png")[None])
```
"""

_TORCHVISION = """## torchvision

```python
import torchvision
from safetensors.torch import load_file
from torch import nn

model = torchvision.models.{name}()
{stem}model.fc = nn.Identity()
model.load_state_dict(load_file("{weights}"))
model.eval()
```
"""

_SMALL_STEM = """model.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=2, bias=False)
model.maxpool = nn.Identity()
"""

_ONNX = """## ONNX

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
images = np.zeros((1, 3, {size}, {size}), np.float32)
(features,) = session.run(["features"], {{"images": images}})
```
"""


def usage(backbone: Backbone, forms: Collection[str]) -> str:
    """The page of a folder in these forms; its lines are run from inside the folder."""
    made = backbone.architecture
    parts = [f"# {plain(backbone.provenance.label)}\n", _facts(backbone)]
    if "timm" in forms:
        parts.append(f"## timm\n\n{TIMM}")
    if "torchvision" in forms:
        stem = _SMALL_STEM if made.small_stem else ""
        parts.append(_TORCHVISION.format(name=made.torchvision, stem=stem, weights=WEIGHTS))
    if "onnx" in forms:
        parts.append(_ONNX.format(file=ONNX, size=backbone.size))
    if "solo" in forms:
        parts.append(solo_page(backbone))
    return "\n".join(parts)


def _facts(backbone: Backbone) -> str:
    seen, origin = backbone.transform, backbone.provenance.origin
    sides = seen.resize if isinstance(seen.resize, int) else f"both {seen.resize[0]}"
    lines = [
        f"{backbone.architecture.name}, {backbone.num_features} features of a picture.",
        f"Pictures: RGB, the shorter side to {sides} pixels ({seen.interpolation}), {seen.size} x "
        f"{seen.size} at the centre, divided by 255, mean {_numbers(seen.mean)}, std "
        f"{_numbers(seen.std)}.",
    ]
    if origin is not None:
        lines.append(
            f"Trained by {origin.method} for {backbone.provenance.epochs} epochs on "
            f"{backbone.provenance.dataset}: {origin.split.description}, "
            f"{origin.split.num_samples} images, seed {backbone.provenance.seed}."
        )
    return "\n".join(map(plain, lines)) + "\n"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
