# SPDX-License-Identifier: MIT
"""Finished segmentations as a report takes them."""

from collections.abc import Sequence
from pathlib import Path

from ltplugins.core.errors import UserError
from ltplugins.downstream.segmentation.examples import read_examples
from ltplugins.downstream.segmentation.results import SegmentResults
from ltplugins.report.pages.masks import MaskRun
from ltplugins.runs.folder import RunFolder


def is_segmentation(path: str | Path) -> bool:
    """Whether a folder holds a run of ``ltplugins segment``."""
    facts = RunFolder(path).facts
    return facts is not None and facts.method == "segment"


def gather_masks(paths: Sequence[str | Path]) -> list[MaskRun]:
    """What a report needs of each run; what tells their rows apart is in the rows' names.

    Raises:
        UserError: a run that is not finished, or whose results are damaged.
    """
    found = []
    for path in paths:
        file = Path(path) / "results.json"
        if not file.exists():
            raise UserError(f"{path} is not finished: the same ltplugins segment goes on with it.")
        found.append(SegmentResults.read(file))
    keys = {
        "loss": [" + ".join(f"{v:g} {k}" if v != 1 else k for k, v in r.loss.items()
                            if (k, v) != ("tau", 1.0)) for r in found],
        "data": [r.data["description"] for r in found],
        "epochs": [f"{r.epochs} epochs" for r in found],
    }  # fmt: skip
    told = [values for values in keys.values() if len(set(values)) > 1]
    runs = []
    for i, (path, results) in enumerate(zip(paths, found, strict=True)):
        marks = ", ".join(values[i] for values in told)
        row = f"{results.method} ({marks})" if marks else results.method
        info = {key: values[i] for key, values in keys.items()}
        runs.append(_as_run(Path(path), results, row, info))
    return runs


def _as_run(path: Path, results: SegmentResults, row: str, info: dict[str, str]) -> MaskRun:
    numbers = {"mIoU": results.miou, "pixel accuracy": results.accuracy}
    for by, groups in results.groups.items():
        numbers |= {f"{name} by {by}": value for name, value in groups.items()}
    examples = path / "examples.npz"
    return MaskRun(
        name=str(path),
        row=row,
        seed=results.seed,
        numbers=numbers,
        class_names=results.class_names,
        per_class=results.per_class,
        pixel_counts=results.pixel_counts,
        members=results.members["pixels"],
        examples=read_examples(examples) if examples.exists() else [],
        info={**info, "seed": str(results.seed), "encoder": results.encoder["run"],
              "hash of the data": results.data["hash"][:16]},
        notes=results.notes,
    )  # fmt: skip
