# SPDX-License-Identifier: MIT
"""From an evaluation to its gallery: which pictures are looked up, and where.

Legend: G images of the gallery.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from ltplugins.core.errors import UserError
from ltplugins.data.sources.base import CorruptImage
from ltplugins.data.sources.build import build_ood_source
from ltplugins.eval.banks import Features
from ltplugins.eval.extractor import FeatureExtractor
from ltplugins.eval.gallery import (
    FILE,
    Gallery,
    about_gallery,
    chosen_of_pool,
    nearest,
    pick_points,
    pick_queries,
    thumbnails,
    write_gallery,
)
from ltplugins.eval.options import Bank
from ltplugins.eval.results import ProtocolResult, Results
from ltplugins.metrics.knn import knn_predict

log = logging.getLogger(__name__)


def keep_gallery(
    folder: Path,
    extract: FeatureExtractor,
    results: Results,
    test: Features,
    banks: Mapping[str, Features],
    limit: int,
) -> None:
    """Write the gallery into a run's folder; what cannot be looked up is left out, with a warning.

    Args:
        folder: the run's.
        extract: gave the features.
        results: the evaluation's.
        test: features of all test images.
        banks: those of the parts that others were compared with.
        limit: test images that are kept.
    """
    knn = {name: e for name, e in results.protocols.items() if e.kind == "knn"}
    name, entry = next(iter(knn.items()), ("", None))
    bank = "" if entry is None else str(entry.settings.get("bank", "probe"))
    if bank not in banks:  # kept from an earlier evaluation, as its gallery is
        name, entry, bank = "", None, ""
    about = {"test": extract.keys["test"], "protocol": name, "bank": bank}
    about |= {"bank_key": extract.keys.get(bank, ""), "limit": str(limit)}
    there = about_gallery(folder / FILE)
    if there == about or (there and entry is None and there.get("test") == about["test"]):
        return
    try:
        source = extract.parts.source("test")
        chosen = pick_points(test.targets, limit)
        found = Gallery(
            about,
            chosen.numpy(),
            test.targets[chosen].numpy(),
            thumbnails(source.load, chosen.tolist()),
        )
        if entry is not None:
            _add_votes(found, test, banks[bank], entry, len(results.class_names))
            _add_neighbours(found, extract, results, test, banks[bank])
        _add_pool(found, extract)
    except (UserError, CorruptImage) as error:
        log.warning("no pictures are kept for pages: %s", error)
        return
    write_gallery(folder / FILE, found)


def _add_votes(
    found: Gallery, test: Features, bank: Features, entry: ProtocolResult, num_classes: int
) -> None:
    found.preds = knn_predict(
        *bank,
        test.feats[found.places],
        num_classes=num_classes,
        k=int(entry.settings["k"]),
        temperature=float(entry.settings["temperature"]),
    ).numpy()


def _add_neighbours(
    found: Gallery, extract: FeatureExtractor, results: Results, test: Features, bank: Features
) -> None:
    """Of images of rare classes, where it is known which are, and which image is which."""
    name = found.about["bank"]
    [part] = [part for part in get_args(Bank) if part == name]
    source = extract.parts.source(part)
    if not any(results.class_counts) or len(source) != len(bank.targets):
        return
    queries = pick_queries(found.targets, results.class_counts)
    places, labels = nearest(bank, test.feats[found.places[queries]])
    images = thumbnails(source.load, places.ravel().tolist())
    found.queries, found.near_targets = queries, labels
    found.near_images = images.reshape(*labels.shape, *images.shape[1:])


def _add_pool(found: Gallery, extract: FeatureExtractor) -> None:
    """What COLT has chosen last, where the checkpoint says it and the pool is still there."""
    state = extract.run.data_state
    if "ood_subset" not in state or not len(state["ood_subset"]):
        return
    try:
        pool = build_ood_source(extract.parts.data)
    except UserError as error:
        log.warning("pictures of the pool are left out: %s", error)
        return
    positions = state["ood_subset"].numpy()
    if pool is None or positions.max() >= len(pool):
        return
    sizes = state.get("ood_sizes")
    shown, clusters, sizes = chosen_of_pool(positions, None if sizes is None else sizes.numpy())
    found.pool_images = thumbnails(pool.load, shown.tolist())
    found.pool_clusters, found.pool_sizes = clusters, sizes
