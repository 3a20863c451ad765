# SPDX-License-Identifier: MIT
"""Features of a run's backbone on the parts of its data set, cached in the run's folder.

Legend: N images, B batch, S crop size.
"""

import logging
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.data.augment.pil import View, view_transform
from ltplugins.data.augment.plain import EvalDataset, eval_transform, labelled, stream_images
from ltplugins.data.augment.schema import normalisation
from ltplugins.data.patience import PatientLoader
from ltplugins.data.sources.base import Source
from ltplugins.data.sources.contents import content_hash
from ltplugins.data.sources.named import Part
from ltplugins.eval.banks import Features
from ltplugins.eval.features import cached_features, extract_features, feature_key
from ltplugins.eval.parts import Parts
from ltplugins.runs.checkpoint import TrainedRun
from ltplugins.runs.model import load_trained

log = logging.getLogger(__name__)


class FeatureExtractor:
    """Features of a run's backbone on the parts of its data set, cached in the run's folder.

    Attributes:
        keys: part -> key of its cached features.
        contents: part -> hash of its images and labels.
        places: part -> those of its images, where the source knows them.
    """

    def __init__(self, run: TrainedRun, parts: Parts, device: str, batch_size: int) -> None:
        self.run, self.parts, self.device, self.batch_size = run, parts, device, batch_size
        self.data, self.block = parts.data, run.cfg.augmentations[0]
        model = load_trained(run, parts.record)
        # Training's memory format gives other last bits; without it they are those of an export.
        self.backbone = model.backbone.to(memory_format=torch.contiguous_format)
        # Where the method has one: a supervised method is judged by what it itself says, too.
        self.classifier = model.class_logits if getattr(model, "own_classifier", False) else None
        self.keys: dict[str, str] = {}
        self.contents: dict[str, str] = {}
        self.places: dict[str, np.ndarray] = {}

    def __call__(self, part: Part) -> Features:
        """Extract (or read) the features of a part.

        Raises:
            UserError: see :meth:`Parts.source`; an image that cannot be decoded.
        """
        source = self.parts.source(part)
        shape = (self.block.crop_size, *normalisation(self.block, source.record))
        # A number without one of its test images is another number; a bank may have gaps.
        skips = part != "test" and self.data.on_corrupt == "skip"
        self.contents[part] = content_hash(source)
        data = f"{self.data.dataset}/{part} {self.contents[part]}" + (" skip" if skips else "")
        key = feature_key(self.backbone, data, f"eval_transform{shape}")
        self.keys[part] = key
        if source.places is not None:
            self.places[part] = source.places

        def compute() -> tuple[Tensor, Tensor]:
            log.info("%s: features of %d %s images", self.run.cfg.method, len(source), part)
            return extract_features(self.backbone, self._batches(source, part, skips), self.device)

        features = Features(*cached_features(key, self.run.path / "features", compute))
        if len(features.targets) < len(source):
            missing = len(source) - len(features.targets)
            log.warning(
                "%d of %d %s images cannot be decoded and are left out", missing, len(source), part
            )
        return features

    def two_views(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features of two random views of test images, by the first blocks of the augmentations.

        The views of an image depend on its position alone: they are the same at every call.

        Args:
            places: Int[M], positions in the test set.

        Returns:
            Float[M D] each.
        """
        source, blocks = self.parts.source("test"), self.run.cfg.augmentations
        pair = [blocks[0], blocks[0 if blocks[0].num_crops > 1 else min(1, len(blocks) - 1)]]
        known = f"{self.data.dataset}/test {content_hash(source, places)}"
        key = feature_key(self.backbone, known, f"two views {pair}")

        def batches() -> Iterable[tuple[Tensor, Tensor]]:
            for number, block in enumerate(pair):
                make = view_transform(block, source.record)
                for part in np.array_split(places, max(1, len(places) // self.batch_size)):
                    yield _drawn(source, part, make, number), torch.from_numpy(part)

        def compute() -> tuple[Tensor, Tensor]:
            log.info("%s: two views of %d test images", self.run.cfg.method, len(places))
            return extract_features(self.backbone, batches(), self.device)

        first, second = cached_features(key, self.run.path / "features", compute)[0].chunk(2)
        return first, second

    def _batches(self, source: Source, part: Part, skips: bool) -> Iterable[tuple[Tensor, Tensor]]:
        """Images with their labels, in order; without those that cannot be decoded where allowed.

        Raises:
            UserError: an image that cannot be decoded and may not be left out.
        """
        if source.images is not None:
            shape = (self.block.crop_size, *normalisation(self.block, source.record))
            dataset = EvalDataset(source, eval_transform(source.record, *shape))
            yield from PatientLoader(dataset, self.batch_size, num_workers=self.data.num_workers)
            return
        stream = stream_images(
            source,
            np.arange(len(source)),
            self.block,
            batch_size=self.batch_size,
            num_workers=self.data.num_workers,
            on_corrupt="skip" if skips else "fail",
            way_out="" if part == "test" else ", or leave it out of the bank: data.on_corrupt=skip",
        )
        yield from labelled(stream, source.targets)


def _drawn(source: Source, places: np.ndarray, make: View, number: int) -> Tensor:
    """Float[B 3 S S], one view of each image, seeded by the image and the view's number."""
    views = []
    for i in places.tolist():
        torch.manual_seed(int(np.random.SeedSequence((i, number)).generate_state(1)[0]))
        views.append(make(Image.fromarray(source.load(i))))
    return torch.stack(views)


def find_device(name: str) -> str:
    """``auto`` as what is here; other names as they are.

    Raises:
        UserError: no name of a device, or one that is not here.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if count else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise UserError(
            f"device: expected auto, cpu, cuda or cuda:N, got '{name}'. Set device=auto."
        )
    if kind == "cuda" and int(index or 0) >= count:
        raise UserError(
            f"device: expected one that is here, got '{name}', and torch {torch.__version__} sees "
            f"{count or 'no'} GPU{'s' if count > 1 else ''}. Set device=cpu or device=auto."
        )
    return name
