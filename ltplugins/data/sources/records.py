# SPDX-License-Identifier: MIT
"""What is known about a data set: classes, pixel statistics, native size, which stem suits it.

Statistics and stem hang on this record and not on a name in an ``if``, so that the pretraining and
the evaluation of one data set can never use two different normalisations.
"""

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Images up to this many pixels a side keep their resolution in a 3x3 stem without max-pooling.
SMALL_IMAGE = 64


@dataclass(frozen=True)
class DataRecord:
    """Facts of one data set; ``mean`` and ``std`` are per RGB channel, for pixels in [0, 1].

    ``grey`` says that its images have no colours that augmentations could change.
    """

    name: str
    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    small_stem: bool
    grey: bool = False


def _fashion(name: str) -> DataRecord:
    # Mean and std over the 60,000 training images; the one grey channel is repeated three times.
    return DataRecord(name, 10, (0.2860, 0.2860, 0.2860), (0.3530, 0.3530, 0.3530), 28, True, True)


RECORDS: dict[str, DataRecord] = {
    "fashion_pack": _fashion("fashion_pack"),
    "fashion_mnist": _fashion("fashion_mnist"),
    "emoji_pack": DataRecord(
        "emoji_pack", 8, (0.2773, 0.2773, 0.2773), (0.3051, 0.3051, 0.3051), 28, True, True
    ),
    # Over all tiles of the default cut; classes, size and stem are a source's own.
    "land_pack": DataRecord(
        "land_pack", 10, (0.4046, 0.3868, 0.2884), (0.2685, 0.2397, 0.2639), 32, True
    ),
    "land_pool": DataRecord(
        "land_pool", 1, (0.4046, 0.3868, 0.2884), (0.2685, 0.2397, 0.2639), 32, True
    ),
    "cifar10": DataRecord(
        "cifar10", 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 32, True
    ),
    "cifar100": DataRecord(
        "cifar100", 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), 32, True
    ),
    "stl10": DataRecord("stl10", 10, (0.4914, 0.4823, 0.4466), (0.2470, 0.2430, 0.2610), 96, False),
    "imagenet": DataRecord("imagenet", 1000, IMAGENET_MEAN, IMAGENET_STD, 224, False),
    "imagenet100": DataRecord("imagenet100", 100, IMAGENET_MEAN, IMAGENET_STD, 224, False),
}


def custom_record(num_classes: int, image_size: int = 224, *, grey: bool = False) -> DataRecord:
    """Make a record for a data set without one: ImageNet statistics, stem by image size."""
    small = image_size <= SMALL_IMAGE
    return DataRecord("custom", num_classes, IMAGENET_MEAN, IMAGENET_STD, image_size, small, grey)
