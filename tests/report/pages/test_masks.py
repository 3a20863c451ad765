# SPDX-License-Identifier: MIT
"""The page of segmentations: repetitions are one row, rare classes are shown."""

import csv

import numpy as np
import pytest

from ltplugins.core.errors import UserError
from ltplugins.report.pages.masks import MaskRun, mask_rows, write_mask_report


def run(name, row="simclr+unet", seed=0, miou=0.25, **changes):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)
    mask = rng.integers(0, 3, (8, 8)).astype(np.uint8)
    given = {
        "numbers": {"mIoU": miou, "rare by pixels": None}, "class_names": ["sea", "land", "a<b"],
        "per_class": [0.5, 0.0, None], "pixel_counts": [90, 9, 1],
        "examples": [(pixels, mask, mask)],
        "members": {"frequent": [0], "common": [1], "rare": [2]}, "info": {"seed": str(seed)},
        "notes": ["no test pixel: a<b"],
    }  # fmt: skip
    return MaskRun(name, row, seed, **{**given, **changes})


def test_seeds_are_one_row_and_the_page_stands_alone(tmp_path):
    runs = [run("a"), run("b", seed=1, miou=0.35), run("c", row="gh_simclr+unet", examples=[])]
    html = write_mask_report(runs, tmp_path, "Masks").read_text()
    text = (tmp_path / "report.md").read_text()
    assert "| simclr+unet | 30.0 ± 7.1 | n/a |" in text and "| gh_simclr+unet | 25.0 |" in text
    assert html.count("<svg") == 3 and html.count("data:image/png;base64") == 4  # an example's four
    assert "a&lt;b" in html and "no test pixel: a&lt;b" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    found = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert found == ["iou-0.png", "iou-1.png", "masks-0.png"]
    lines = list(csv.DictReader((tmp_path / "numbers.csv").open()))
    assert {
        "row": "simclr+unet",
        "run": "b",
        "seed": "1",
        "number": "mIoU",
        "value": "0.35",
    } in lines
    assert len(lines) == 3 * 5


def test_twins_are_rows_of_their_own_and_other_classes_are_refused():
    assert list(mask_rows([run("a"), run("b")])) == ["simclr+unet (a)", "simclr+unet (b)"]
    assert list(mask_rows([run("a"), run("b", seed=1)])) == ["simclr+unet"]
    with pytest.raises(UserError, match="need the same classes, got 3 in a and others, 2, in b"):
        mask_rows([run("a"), run("b", class_names=["sea", "land"])])
