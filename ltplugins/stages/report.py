# SPDX-License-Identifier: MIT
"""Report of evaluated runs: gathers their results, curves and embeddings for ``eval.report``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.downstream.segmentation.gather import gather_masks, is_segmentation
from ltplugins.eval.features import cached_features
from ltplugins.eval.gallery import pick_points
from ltplugins.eval.results import Results
from ltplugins.metrics.knn import knn_predict
from ltplugins.report.classes import MOST_CLASSES
from ltplugins.report.embed import MAX_POINTS, embed_2d
from ltplugins.report.evaluated import RunResult
from ltplugins.report.pages.masks import write_mask_report
from ltplugins.report.pages.pictures import Study
from ltplugins.report.pages.write import make_study, write_report
from ltplugins.report.rows import Trait, name_rows
from ltplugins.report.scatter import MAX_PANELS
from ltplugins.report.terminal import show_results
from ltplugins.runs.places import RUN_FILE, folder_of
from ltplugins.stages.gather import gather_run
from ltplugins.stages.traits import run_traits


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
    k, temperature = knn.settings.get("k"), knn.settings.get("temperature")
    if not isinstance(k, int) or not isinstance(temperature, float) or k < 1 or temperature <= 0:
        return None
    part = str(knn.settings.get("bank", "probe"))
    if not _is_cached(folder, results, part):
        return None
    bank, labels = _cached(folder, results, part)
    preds = knn_predict(
        bank,
        labels,
        feats,
        k=k,
        temperature=temperature,
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

    return cached_features(str(results.features.get(part)), folder / "features", refuse)
