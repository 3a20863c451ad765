# SPDX-License-Identifier: MIT
"""A backbone as ONNX: any batch size, checked with onnxruntime before anybody else opens it.

Legend: B batch, S pixels a side, D width of the features.
"""

import importlib
import json
import warnings
from pathlib import Path

import torch

from ltplugins.core.errors import UserError, install
from ltplugins.zoo.backbone import Backbone
from ltplugins.zoo.preprocess import timm_keys

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_BATCHES = (1, 2, 5)
_TOLERANCE = 1e-4  # of a feature's value, and absolutely


def require_onnx() -> None:
    """Refuse to begin where one of the libraries is missing.

    Raises:
        UserError: which, and how to get it.
    """
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            raise UserError(
                f"--onnx needs {', '.join(_NEEDED)}, and {name} is not installed. In the checkout: "
                f"{install('onnx')}"
            ) from None


def write_onnx(backbone: Backbone, file: Path) -> None:
    """Write ``images`` Float[B 3 S S] to ``features`` Float[B D], its preprocessing inside.

    Raises:
        UserError: torch cannot express the network in ONNX, or its features differ by more than
            1e-4.
    """
    import onnx

    images = backbone.noise(2)  # of one image torch.export would make a constant
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                backbone,
                (images,),
                dynamo=True,
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
            assert program is not None
            program.save(str(file), external_data=False)
    except Exception as error:  # of torch.export, its translation, or onnx
        raise UserError(
            f"{backbone.architecture.name} cannot be written as ONNX ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]})."
        ) from error
    model = onnx.load(str(file))
    seen = json.dumps(timm_keys(backbone.transform))
    onnx.helper.set_model_props(model, {"preprocessing": seen, "label": backbone.provenance.label})
    onnx.save(model, str(file))
    _check(backbone, file)


def _check(backbone: Backbone, file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for count in _BATCHES:
        images = backbone.noise(count)
        (found,) = session.run(["features"], {"images": images.numpy()})
        with torch.no_grad():
            expected = backbone(images)
        gap = (torch.from_numpy(found) - expected).abs() / expected.abs().clamp(min=1)
        if not gap.max() <= _TOLERANCE:
            raise UserError(
                f"{backbone.architecture.name} as ONNX gives other features: they differ by up to "
                f"{float(gap.max()):.1e}, expected {_TOLERANCE:g}."
            )
