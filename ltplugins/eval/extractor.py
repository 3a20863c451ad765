# SPDX-License-Identifier: MIT
"""Features of a run's backbone on the parts of its data set, cached in the run's folder."""

import logging

import torch
from torch.utils.data import DataLoader

from ltplugins.core.errors import UserError
from ltplugins.data.augment.plain import EvalDataset, eval_transform
from ltplugins.data.augment.schema import normalisation
from ltplugins.data.sources.base import Source, content_hash
from ltplugins.data.sources.build import build_source
from ltplugins.data.sources.named import Part
from ltplugins.eval.features import cached_features, extract_features, feature_key
from ltplugins.eval.protocol import Features
from ltplugins.runs.checkpoint import TrainedRun
from ltplugins.runs.model import load_trained

log = logging.getLogger(__name__)


class FeatureExtractor:
    """Features of a run's backbone on the parts of its data set, cached in the run's folder."""

    def __init__(self, run: TrainedRun, device: str, batch_size: int) -> None:
        self.run, self.device, self.batch_size = run, device, batch_size
        self.data, self.block = run.cfg.data, run.cfg.augmentations[0]
        self.train = build_source(self.data, "train")
        model = load_trained(run, self.train.record)
        self.backbone = model.backbone
        # Where the method has one: a supervised method is judged by what it itself says, too.
        self.classifier = model.class_logits if getattr(model, "own_classifier", False) else None
        self.keys: dict[str, str] = {}

    def __call__(self, part: Part, source: Source | None = None) -> Features:
        """Extract (or read) the features of a part, or of ``source`` in its place."""
        source = source or build_source(self.data, part)
        shape = (self.block.crop_size, *normalisation(self.block, source.record))
        data = f"{self.data.dataset}/{part} {content_hash(source)}"
        key = feature_key(self.backbone, data, f"eval_transform{shape}")
        self.keys[part] = key

        def compute() -> tuple[torch.Tensor, torch.Tensor]:
            dataset = EvalDataset(source, eval_transform(source.record, *shape))
            loader = DataLoader(dataset, self.batch_size, num_workers=self.data.num_workers)
            log.info("%s: features of %d %s images", self.run.cfg.method, len(source), part)
            return extract_features(self.backbone, loader, self.device)

        return Features(*cached_features(key, self.run.path / "features", compute))


def check_split(run: TrainedRun, found: str) -> None:
    """The groups come from the training counts: they must be those of the training.

    Raises:
        UserError: the data set now gives another split.
    """
    expected = run.origin.split.hash if run.origin else None
    if expected is not None and expected != found:
        raise UserError(
            f"{run.path}: the split now has hash {found[:12]}, the run was trained on "
            f"{expected[:12]}. The data set has changed; evaluate where it was trained."
        )


def find_device(name: str) -> str:
    """``auto`` as what is here; other names as they are."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name
