# SPDX-License-Identifier: MIT
"""From the ``data`` block to a source: which images, without any choice of a subset but `fraction`.

Parts: ``train``; ``probe``, on which linear probes and kNN are fitted; ``test``.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ltplugins.core.errors import UserError
from ltplugins.data.schema import BY_PATH, DataConfig
from ltplugins.data.sources.arrays import arrays_from_path
from ltplugins.data.sources.base import Source
from ltplugins.data.sources.files import file_list, flat_folder, image_folder
from ltplugins.data.sources.hub import hub_source
from ltplugins.data.sources.named import Part, named_source

# solo-learn draws its fraction with this state; the same key gives the same images here.
_FRACTION_STATE = 42


def build_source(
    cfg: DataConfig, part: Part = "train", classes: Sequence[str] | None = None
) -> Source:
    """Build the source that the ``data`` block names for one part.

    Args:
        cfg: the ``data`` block.
        part: ``probe`` of a set by path is ``probe_path``, or the train part where that is absent.
        classes: names by class id, for a part of a set by path; None = those of its train part,
            which must then be there, too.

    Raises:
        UserError: a source that is absent or damaged; nothing is decoded here but headers.
    """
    source = _by_path(cfg, part, classes) if cfg.dataset in BY_PATH else named_source(cfg, part)
    if part == "train" and cfg.fraction > 0:
        return _take_fraction(source, cfg.fraction)
    return source


def build_ood_source(cfg: DataConfig) -> Source | None:
    """Build the pool that ``data.ood`` names, None where it names none.

    Raises:
        UserError: the pool without the sampler that draws from it, or that sampler without a pool;
            a source that is absent or damaged.
    """
    block, sampler = cfg.ood, cfg.sampler.name
    if block is None and sampler == "id_plus_ood":
        raise UserError(
            "data.sampler: id_plus_ood draws from a pool of OOD images and data.ood names none. "
            "Set data.ood, such as {dataset: emoji_pack}, or data.sampler: shuffle."
        )
    if block is None:
        return None
    if sampler != "id_plus_ood":
        raise UserError(
            f"data.ood is given and data.sampler is {sampler}, which never draws from it. "
            f"Set data.sampler: id_plus_ood, or data.ood: null."
        )
    try:
        # land_pool is cut as the tiles are, and lies where these are trained on.
        cut = cfg.given_of_land if block.dataset == "land_pool" else {}
        pool = DataConfig(**dataclasses.asdict(block), **cut, no_labels=True)
        return build_source(pool, "train")
    except UserError as error:
        raise UserError(f"data.ood: {error}") from None


def _by_path(cfg: DataConfig, part: Part, classes: Sequence[str] | None = None) -> Source:
    key = {"train": "train_path", "probe": "probe_path", "test": "val_path"}[part]
    path = getattr(cfg, key)
    if path is None and part == "probe":
        key, path = "train_path", cfg.train_path
    if path is None:
        raise UserError(f"data.{key} is missing: data.dataset {cfg.dataset} is read from a path.")
    # Classes are those of the training part; another part need not show all of them.
    own_classes = key == "train_path" or cfg.train_path is None
    if cfg.format == "image_folder":
        if cfg.no_labels and own_classes:
            return flat_folder(path, dataset=cfg.dataset)
        names = _classes(cfg, classes, own_classes)
        return image_folder(path, dataset=cfg.dataset, class_names=names)
    no_labels = cfg.no_labels and own_classes
    known = _classes(cfg, classes, own_classes)
    if cfg.format == "hf":
        return hub_source(path, part, no_labels=no_labels, classes=known)
    count = None if known is None else len(known)
    if cfg.format == "file_list":
        return file_list(
            path, cfg.root, dataset=cfg.dataset, no_labels=no_labels, num_classes=count
        )
    return arrays_from_path(path, no_labels=no_labels, num_classes=count)


def _classes(
    cfg: DataConfig, classes: Sequence[str] | None, own_classes: bool
) -> tuple[str, ...] | None:
    """The classes that a part's labels are held to; None where it brings its own."""
    if classes is not None:
        return tuple(classes)
    return None if own_classes or cfg.no_labels else _by_path(cfg, "train").class_names


def _take_fraction(source: Source, fraction: float) -> Source:
    # Not at the top: scikit-learn brings pandas along, a tenth of the time that a start takes.
    from sklearn.model_selection import train_test_split

    labelled = bool((source.targets >= 0).all())
    try:
        chosen, _ = train_test_split(
            np.arange(len(source)),
            train_size=fraction,
            stratify=source.targets if labelled else None,
            random_state=_FRACTION_STATE,
        )
    except ValueError as error:
        raise UserError(f"data.fraction {fraction}: {error}") from None
    return source.subset(chosen)
