# SPDX-License-Identifier: MIT
"""results.json has a schema: it opens again as it was, older files too."""

import json
from pathlib import Path
from typing import Any

import pytest

from ltplugins.core.errors import UserError
from ltplugins.eval.results import Results

STAT = {"mean": 0.5, "std": None, "n": 1}
KNN = {
    "kind": "knn",
    "description": "cosine-weighted kNN",
    "settings": {"k": 3},
    "n_train": 30,
    "seeds": [],
    "n": 1,
    "overall": STAT,
    "balanced": STAT,
    "class_std": STAT,
    "groups": {"tercile": {"many": STAT, "medium": STAT, "few": STAT, "group_std": STAT}},
    "per_class": [0.5, None, 1],
}
# As it was written before there was a schema.
FILE: dict[str, Any] = {
    "version": 1,
    "protocols": {
        "knn_k3_T0.07": KNN,
        "linear_4shot": {
            **KNN,
            "chosen_c": [0.1],
            "val_accuracy": [[0.5, None]],
            "converged": [True],
        },
    },
    "groups": {"tercile": {"rule": "thirds", "many": [0], "medium": [1], "few": [2]}},
    "class_counts": [24, 12, 6],
    "sizes": {"train": 42, "probe": 42, "test": 24},
    "notes": [],
    "run": "tiny",
    "method": "simclr",
    "seed": 0,
    "epoch": 2,
    "host": None,
    "dataset": "custom",
    "split": {"hash": "abc", "description": "all 42 images"},
    "class_names": ["a", "b", "c"],
    "features": {"test": "f0"},
    "options": {"knn": {"k": 3}},
    "evaluated": "2026-01-01T00:00:00+00:00",
}


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_an_older_file_opens_and_is_written_as_it_was(tmp_path: Path) -> None:
    results = Results.read(write(tmp_path / "results.json", FILE))
    assert results.protocols["linear_4shot"].converged == [True]
    assert results.groups["tercile"].of("few") == [2]
    assert results.protocols["knn_k3_T0.07"].groups["tercile"]["few"].mean == 0.5
    results.write(tmp_path / "again.json")
    new = {"version": 3, "failed": {}, "parts": {}, "data": {}}
    assert json.loads((tmp_path / "again.json").read_text()) == {**FILE, **new}
    without = {key: value for key, value in FILE.items() if key != "version"}
    assert Results.read(write(tmp_path / "old.json", without)) == results


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 7}, "is of form 7"),
        ({"protocols": {"knn": {**KNN, "overall": 3}}}, "protocols.knn.overall: expected"),
        ({"health": {"rankme": 3.0}}, "health.uniformity is missing"),
        ({"class_counts": ["many"]}, r"class_counts\[0\]: expected a whole number"),
    ],
)
def test_others_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        Results.read(write(tmp_path / "results.json", {**FILE, **change}))
