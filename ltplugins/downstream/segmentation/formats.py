# SPDX-License-Identifier: MIT
"""Where the sets of the field keep images and masks, and what the labels of their masks mean.

Whoever trains on VOC, Cityscapes or ADE20K tests on the validation part: test labels are not given
out. Their licences are their own; nothing is fetched.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltplugins.core.errors import UserError
from ltplugins.core.files import expanded
from ltplugins.downstream.segmentation.options import IGNORE, MaskData
from ltplugins.downstream.segmentation.pairs import FilePairs

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
)
# The labelIds that are scored, in the order of the trainIds.
_CITY = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
_CITY_LABELS = 34  # labelIds 0 to 33; that of licence plates, -1, is written as 255
ADE_CLASSES = 150


def file_pairs(data: MaskData, part: str) -> tuple[FilePairs, list[str] | None]:
    """The pairs of a set in files, and its classes' names; None where the masks alone say them.

    Args:
        data: names the format and the folder.
        part: ``train``, ``val`` or ``test``.

    Raises:
        UserError: a folder or list is absent, an image without a mask.
    """
    root = expanded(str(data.path))
    if not root.is_dir():
        raise UserError(
            f"data.path: expected the folder of a set of format {data.format}, got {root}, which "
            f"is none."
        )
    find = {"folder": _folder, "voc": _voc, "cityscapes": _cityscapes, "ade20k": _ade20k}
    images, masks = find[data.format](root, part)
    table, allowed, names = _meaning(data, root)
    return FilePairs(images, masks, table, allowed, data.max_pixels), names


def _meaning(data: MaskData, root: Path) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """From a file's label to a class, which labels there are, and the classes' names."""
    table, allowed = np.full(256, IGNORE, np.uint8), np.zeros(256, bool)
    if data.format == "voc":
        names = _VOC_NAMES.split()
        table[: len(names)] = np.arange(len(names))
        allowed[[*range(len(names)), IGNORE]] = True  # 255: borders
    elif data.format == "cityscapes":
        names = list(_CITY.values())
        table[list(_CITY)] = np.arange(len(names))
        allowed[[*range(_CITY_LABELS), IGNORE]] = True
    elif data.format == "ade20k":
        names = _ade_names(root)
        table[1 : ADE_CLASSES + 1] = np.arange(ADE_CLASSES)  # 0: other, not scored
        allowed[: ADE_CLASSES + 1] = True
    else:
        count = data.num_classes or IGNORE
        table[:count] = np.arange(count)
        allowed[:count] = True
        table[data.ignore], allowed[data.ignore] = IGNORE, True
        return table, allowed, None
    return table, allowed, names


def _folder(root: Path, part: str) -> tuple[list[Path], list[Path]]:
    """``PART/images/NAME.jpg`` and ``PART/masks/NAME.png``."""
    folders = [root / part / kind for kind in ("images", "masks")]
    images = _pictures(folders[0])
    masks = {path.stem: path for path in _pictures(folders[1])}
    return images, _matched(images, [masks.get(path.stem) for path in images], folders[1])


def _voc(root: Path, part: str) -> tuple[list[Path], list[Path]]:
    file = root / "ImageSets" / "Segmentation" / ("train.txt" if part == "train" else "val.txt")
    if not file.is_file():
        raise UserError(
            f"{file} is missing: data.path must be the folder VOC2012 with JPEGImages, "
            f"SegmentationClass and ImageSets/Segmentation in it."
        )
    names = file.read_text(encoding="utf-8").split()
    images = [root / "JPEGImages" / f"{name}.jpg" for name in names]
    masks = [root / "SegmentationClass" / f"{name}.png" for name in names]
    return _there(images), _matched(images, masks, root / "SegmentationClass")


def _cityscapes(root: Path, part: str) -> tuple[list[Path], list[Path]]:
    split = "train" if part == "train" else "val"
    folder = root / "leftImg8bit" / split
    images = [path for path in _pictures(folder, "*/*") if "_leftImg8bit" in path.name]
    masks = [
        root / "gtFine" / split / path.parent.name
        / path.name.replace("_leftImg8bit", "_gtFine_labelIds")
        for path in images
    ]  # fmt: skip
    return images, _matched(images, masks, root / "gtFine" / split)


def _ade20k(root: Path, part: str) -> tuple[list[Path], list[Path]]:
    split = "training" if part == "train" else "validation"
    images = _pictures(root / "images" / split)
    masks = [root / "annotations" / split / f"{path.stem}.png" for path in images]
    return images, _matched(images, masks, root / "annotations" / split)


def _ade_names(root: Path) -> list[str]:
    """The first of each class's names in the set's own ``objectInfo150.txt``; numbers without."""
    file = root / "objectInfo150.txt"
    if file.is_file():
        lines = file.read_text(encoding="utf-8").splitlines()[1:]
        names = [line.split("\t")[-1].split(",")[0].strip() for line in lines if line.strip()]
        if len(names) == ADE_CLASSES:
            return names
    return [f"class {label}" for label in range(1, ADE_CLASSES + 1)]


def _pictures(folder: Path, pattern: str = "*") -> list[Path]:
    found = sorted(p for p in folder.glob(pattern) if p.suffix.lower() in _PICTURES)
    if not found:
        raise UserError(
            f"{folder}: expected pictures ({', '.join(_PICTURES)}), found none. Set "
            f"data.path to a folder as docs/segment.md says of data.format, or another data.format."
        )
    return found


def _there(paths: list[Path]) -> list[Path]:
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise UserError(f"{missing} is missing: a list names it. Unpack the whole set.")
    return paths


def _matched(images: Sequence[Path], masks: Sequence[Path | None], folder: Path) -> list[Path]:
    """The masks, all there.

    Raises:
        UserError: the first image without one, and how many there are.
    """
    found = [mask for mask in masks if mask is not None and mask.is_file()]
    if len(found) < len(images):
        lacking = [
            image for image, mask in zip(images, masks, strict=True)
            if mask is None or not mask.is_file()
        ]  # fmt: skip
        raise UserError(
            f"{folder}: expected a mask for each of {len(images)} images, {len(lacking)} have "
            f"none, such as {lacking[0].name}. Add the masks, or take these images away."
        )
    return found
