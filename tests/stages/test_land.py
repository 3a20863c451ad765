# SPDX-License-Identifier: MIT
"""data=land through the stages: every engine trains on it, folds repeat one experiment."""

import json

import pytest

from ltplugins.runs.folder import RunFolder
from ltplugins.stages.blocks import run_keys
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.report import report
from tests.kit.dali import DALI

SHORT = [
    *("max_epochs=1", "limit_train_batches=2", "optimizer.batch_size=8", "accelerator=cpu"),
    *("scheduler.warmup_epochs=0", "enable_progress_bar=false", "augmentations.0.crop_size=16"),
]
SPARSE = ["data.stride=32", "data.least=25"]  # a quarter of the tiles, of the same classes
EVAL = ["eval.linear.shots=[5]", "eval.seeds=[0]", "device=cpu"]


def train(out, *words):
    chosen = ["data=land", *SHORT, f"output_dir={out}", *words]
    pretrain(compose_packaged("pretrain", chosen, run_keys))
    return out


@pytest.mark.parametrize("engine", ["workers", "batched", DALI])
def test_every_engine_trains_on_it(engine, tmp_path):
    run = RunFolder.existing(train(tmp_path / "run", f"data.engine={engine}", "method=gh_simclr"))
    facts = run.read()
    assert facts.finished and facts.split.class_counts[0] == 61
    assert facts.split.class_names[-1] == "barren"


def test_folds_are_repetitions_of_one_experiment(tmp_path):
    runs = [train(tmp_path / f"fold{fold}", f"data.fold={fold}", *SPARSE) for fold in (0, 1)]
    results = [evaluate(compose_packaged("evaluate", [f"run={run}", *EVAL])) for run in runs]
    assert [sum(found.test_counts) for found in results] == [361, 354]
    report(runs, tmp_path / "report")
    text = (tmp_path / "report/report.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| simclr")]
    assert rows and all("±" in row for row in rows), text
    balanced = json.loads((runs[0] / "results.json").read_text())["protocols"]["knn_k20_T0.07"]
    assert balanced["balanced"]["mean"] != balanced["overall"]["mean"]


def test_a_pool_of_the_same_picture_for_colt(tmp_path):
    run = RunFolder.existing(train(tmp_path / "run", "method=colt_simclr", "data.fold=2", *SPARSE))
    assert run.config().data.ood.dataset == "land_pool"
