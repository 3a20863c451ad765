# SPDX-License-Identifier: MIT
"""Report of evaluated runs: gathers their results, curves and embeddings for ``eval.report``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.downstream.segmentation.gather import gather_masks, is_segmentation
from ltplugins.eval.features import cached_features
from ltplugins.eval.gallery import FILE, pick_points, read_gallery
from ltplugins.eval.results import Results
from ltplugins.methods.needs import learns_from_labels
from ltplugins.metrics.knn import knn_predict
from ltplugins.report import prior
from ltplugins.report.classes import MOST_CLASSES
from ltplugins.report.embed import MAX_POINTS, embed_2d
from ltplugins.report.evaluated import RunResult
from ltplugins.report.health import TITLES
from ltplugins.report.pages.masks import write_mask_report
from ltplugins.report.pages.pictures import Study
from ltplugins.report.pages.write import make_study, write_report
from ltplugins.report.rows import Trait, name_rows, progress_mark
from ltplugins.report.scatter import MAX_PANELS
from ltplugins.report.terminal import show_results
from ltplugins.runs.checkpoint import RUN_FILE, folder_of
from ltplugins.runs.facts import RunFacts
from ltplugins.runs.folder import RunFolder
from ltplugins.runs.metrics import read_epochs
from ltplugins.stages.traits import pair_key, run_traits

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


def report(
    runs: Sequence[str | Path],
    out: str | Path,
    title: str = "Comparison of runs",
    rows: Mapping[str, str] | None = None,
    baseline: str | None = None,
) -> Path:
    """Compare evaluated runs, or describe one: a table on the terminal, and a page in ``out``.

    Runs of one method become one row where they are repetitions of one experiment, equal in all
    but seed, class order, split seed and fold; what else differs is named. Rows are compared pair
    by pair. Segmentations have a page of their own, of mIoU and masks.

    Args:
        runs: run folders, folders of run folders, or evaluated checkpoints of solo-learn's.
        out: folder of the report.
        title: of the page.
        rows: run folder -> the row it belongs to, where that is not its method.
        baseline: the row that others are compared with; None = the first.

    Raises:
        UserError: no run there, or one that is not evaluated yet; ``out`` cannot be a folder; no
            row is called as the baseline.
    """
    folders = [path for given in runs for path in _run_folders(Path(given))]
    if all(is_segmentation(path) for path in folders):
        masks = gather_masks(folders)
        _make_folder(out)
        path = write_mask_report(masks, Path(out), title)
        make_console().print(f"report: {path}", highlight=False)
        return path
    results = [gather_run(path) for path in folders]
    _make_folder(out)
    name_rows(results, _traits(results), rows or {})
    study = make_study(results, baseline)  # before anything takes long
    _look_closer(study)
    show_results(results, study.baseline)
    path = write_report(results, out, title, study.baseline)
    make_console().print(f"report: {path}", highlight=False)
    return path


def _make_folder(out: str | Path) -> None:
    """Make the folder of a report, before anything is drawn.

    Raises:
        UserError: it cannot be made, or is a file.
    """
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out: expected a folder that can be made, got {out} ({error.strerror}). Give "
            f"another one."
        ) from None


def _traits(runs: Sequence[RunResult]) -> dict[str, dict[str, Trait]]:
    """In what each run may differ from others of its method."""
    found = {run.name: run_traits(Path(run.name), _results(run)) for run in runs}
    pictures: dict[str, set[str]] = {}
    for run in runs:
        results = _results(run)
        if results.contents is not None:
            pictures.setdefault(results.split.hash, set()).add(results.contents.pictures)
    for run in runs:
        results = _results(run)
        # Of one split, but other pictures: the data were exchanged between two trainings.
        if results.contents is not None and len(pictures[results.split.hash]) > 1:
            own = results.contents.pictures
            found[run.name]["contents"] = Trait(own, own[:6], matters=True)
    return found


def _run_folders(path: Path) -> list[Path]:
    """The folder itself if it holds a run, else the runs right below it, shortest name first.

    Bases before wrappers, so that differences in the tables read "wrapper minus base".
    """
    if path.suffix == ".ckpt" and path.is_file():
        folder = folder_of(path)
        if not (folder / "results.json").exists():
            raise UserError(f"{path} is not evaluated yet: ltplugins evaluate {path}")
        return [folder]
    files = (RUN_FILE, "results.json")  # the second alone: an evaluated checkpoint of solo-learn's
    if any((path / name).exists() for name in files):
        return [path]
    found = {p.parent for name in files for p in path.glob(f"*/{name}")}
    below = sorted(found, key=lambda p: (len(p.name), p.name))
    if not below:
        raise UserError(f"{path} holds no run, and neither do the folders below it.")
    return below


def gather_run(path: str | Path) -> RunResult:
    """Collect what a report needs of one run folder."""
    run = RunFolder.evaluated(path)
    if run.facts is not None and run.facts.method == "segment":
        raise UserError(
            f"{path} is a segmentation, and others of these runs are not: a report compares runs "
            f"of one kind. Give the segmentations to a report of their own."
        )
    results = Results.read(run.results)
    curves = read_epochs(run.metrics) if run.metrics.exists() else {}
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


def _look_closer(study: Study) -> None:
    """Map the features of a few rows' first runs, and see which class is taken for which.

    A t-SNE takes longer than a probe: of more than four rows only the baseline and the leader.
    """
    few = len(study.rows) <= MAX_PANELS
    names = list(study.rows) if few else dict.fromkeys((study.baseline, study.leader))
    for name in names:
        run = study.rows[name][0]
        results, folder = _results(run), Path(run.name)
        feats, targets = _cached(folder, results, "test")
        chosen = pick_points(targets, MAX_POINTS)
        run.embedding = embed_2d(feats[chosen], seed=0, method="tsne")
        run.embedding_targets, run.embedding_method = targets[chosen], "t-SNE"
        run.embedding_places = chosen
        run.taken = _taken(folder, results, feats, targets)


def _taken(
    folder: Path, results: Results, feats: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor | None:
    """Int[C C], test images of each class by the class that their nearest neighbours say.

    None without a kNN protocol, or where its bank is not cached any more.
    """
    knn = next((p for p in results.protocols.values() if p.kind == "knn"), None)
    num_classes = len(results.class_counts)
    if knn is None or num_classes > MOST_CLASSES:
        return None
    part = str(knn.settings.get("bank", "probe"))
    if not _is_cached(folder, results, part):
        return None
    bank, labels = _cached(folder, results, part)
    preds = knn_predict(
        bank,
        labels,
        feats,
        k=int(knn.settings["k"]),
        temperature=float(knn.settings["temperature"]),
        num_classes=num_classes,
    )
    return torch.bincount(targets * num_classes + preds, minlength=num_classes**2).view(
        num_classes, num_classes
    )


def _is_cached(folder: Path, results: Results, part: str) -> bool:
    key = results.features.get(part)
    return key is not None and (folder / "features" / f"{key}.safetensors").exists()


def _results(run: RunResult) -> Results:
    """Of a run that was gathered here, the whole file's."""
    assert isinstance(run.results, Results)
    return run.results


def _cached(folder: Path, results: Results, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels of a part, as the evaluation left them."""

    def refuse() -> tuple[torch.Tensor, torch.Tensor]:
        raise UserError(
            f"the features of {folder} are gone or damaged: ltplugins evaluate {folder}"
        )

    return cached_features(results.features[part], folder / "features", refuse)


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
        "host": str(results.host) if facts else "solo-learn",
    }
    if facts is None:
        return info
    return info | {
        "commit": str(facts.git),
        "versions": ", ".join(f"{k} {v}" for k, v in list(facts.packages.items())[:4]),
        "training": f"{(facts.seconds or 0) / 60:.1f} min, "
        f"{facts.images_per_second or 0:.0f} images/s",
    }
