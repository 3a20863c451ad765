# SPDX-License-Identifier: MIT
"""What a report needs of one evaluated run, from its folder."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.eval.gallery import FILE, read_gallery
from ltplugins.eval.results import Results
from ltplugins.methods.needs import learns_from_labels
from ltplugins.report import prior
from ltplugins.report.evaluated import RunResult
from ltplugins.report.health import TITLES
from ltplugins.report.rows import progress_mark
from ltplugins.runs.facts import RunFacts
from ltplugins.runs.folder import RunFolder
from ltplugins.runs.metrics import read_epochs
from ltplugins.runs.places import LAST_CHECKPOINT
from ltplugins.stages.traits import pair_key

log = logging.getLogger(__name__)

Curve = tuple[Sequence[float], Sequence[float]]  # epochs and values
_HEALTH = [f"health_{name}" for name in TITLES]
# What a reader wants to see of the training; the rest stays in metrics.csv.
_CURVES = (
    "nce_loss",
    "centroid_loss",
    "mixup_loss",
    "balance_loss",
    "finetune_loss",
    "neg_cos_sim",
    "barlow_loss",
    "vicreg_loss",
    "gh_loss",
    "gh_weight",
    "gh_prior_entropy",
    "gml_sup_loss",
    "gml_temperature",
    "acc1",
)


def gather_run(path: str | Path) -> RunResult:
    """Collect what a report needs of one run folder."""
    run = RunFolder.evaluated(path)
    if run.facts is not None and run.facts.method == "segment":
        raise UserError(
            f"{path} is a segmentation, and others of these runs are not: a report compares runs "
            f"of one kind. Give the segmentations to a report of their own."
        )
    results = Results.read(run.results)
    if run.facts is None and (run.path / LAST_CHECKPOINT).exists():
        log.warning("%s/run.json is gone: the page lacks versions, commit and hours.", run.path)
    curves = _read_curves(run, results)
    return RunResult(
        name=str(path),
        results=results,
        group_key=results.method,
        pair_key=pair_key(results),
        curves=_curves(curves),
        prior=_prior(curves),
        health={k.removeprefix("health_"): v for k, v in curves.items() if k in _HEALTH},
        class_names=results.class_names,
        config=OmegaConf.to_yaml(run.config()),
        info=_info(results, run.facts),
        short_name=results.run,
        progress=results.progress,
        sees_labels=_sees_labels(results, run.facts),
        cost=_cost(results, run.facts),
        gallery=read_gallery(Path(path) / FILE, results.features.get("test", "")),
    )


def _read_curves(run: RunFolder, results: Results) -> dict[str, Curve]:
    """What was logged while a run trained; what of it is lost is said."""
    if not run.metrics.exists():
        if run.facts is not None:
            log.warning("%s is gone: the page has no curves of this run.", run.metrics)
        return {}
    steps = results.progress.steps if results.progress and run.facts else 0
    curves, is_whole = read_epochs(run.metrics, steps)
    if not is_whole:
        log.warning("%s is damaged: the page has not all curves of this run.", run.metrics)
    return dict(curves)


def _sees_labels(results: Results, facts: RunFacts | None) -> bool:
    """Whether labels had a part in the weights: by the method, or in a second stage."""
    if facts is None:
        return learns_from_labels(results.method)
    return facts.stage_1 is not None or learns_from_labels(facts.method)


def _cost(results: Results, facts: RunFacts | None) -> dict[str, float]:
    cost = {}
    if results.progress is not None:
        cost["steps"] = float(results.progress.steps)
    if facts is not None and facts.seconds:
        cost["hours"] = facts.seconds / 3600
    return cost


def _curves(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    chosen: dict[str, Curve] = {}
    for name in _CURVES:
        for key in (f"train_{name}_epoch", f"train_{name}"):
            if key in curves:
                chosen[f"train_{name}"] = curves[key]
                break
    # kNN while training, overall and by group.
    knn = [name for name in curves if name.startswith("val_knn_acc1")]
    return chosen | {name: curves[name] for name in knn}


def _prior(curves: Mapping[str, Curve]) -> tuple[Sequence[float], np.ndarray] | None:
    """GH's prior by epoch, where the training has logged it."""
    found = [curves.get(prior.NAME.format(10 * n)) for n in prior.TENTHS]
    if any(curve is None for curve in found):
        return None
    known = [curve for curve in found if curve is not None]
    return known[0][0], np.array([values for _, values in known]).T


def _info(results: Results, facts: RunFacts | None) -> dict[str, str]:
    info = {
        "data": f"{results.dataset}, {results.split.description}",
        "split": results.split.hash[:16],
        "seed": str(results.seed),
        "epochs": progress_mark(results.progress) or str(results.epoch),
        "host": results.host or "solo-learn",
    }
    if facts is None:
        return info
    return info | {
        "commit": str(facts.git),
        "versions": ", ".join(f"{k} {v}" for k, v in list(facts.packages.items())[:4]),
        "training": f"{(facts.seconds or 0) / 60:.1f} min, "
        f"{facts.images_per_second or 0:.0f} images/s",
    }
