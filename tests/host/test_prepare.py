# SPDX-License-Identifier: MIT
"""``host.prepare``: what every main can rely on after its first call, and the facts about bases."""

import json
import os
import sys
from pathlib import Path

from omegaconf import OmegaConf

import ltplugins
from ltplugins.host import METHODS, prepare
from ltplugins.host.builtin import METHOD_KWARGS
from ltplugins.host.facts import BASES, facts_of, packaged_bases
from tests.kit import forked
from tests.kit.hosts import NAMES, needs_solo
from tests.kit.paths import ROOT
from tests.kit.tiny import tiny_config


def test_it_registers_and_says_what_it_found() -> None:
    from ltplugins.host import HOST

    names = ltplugins.register()
    assert prepare() is HOST
    classes = {name: METHODS[name] for name in names}
    assert prepare() is HOST
    assert all(METHODS[name] is cls for name, cls in classes.items())


def run(arguments: list[str], folder: Path, host: str) -> None:
    """A command line of ours in a process of its own: what one main mends helps no other."""
    command = [sys.executable, "-m", "ltplugins.cli", *arguments]
    env = {**os.environ, "LTPLUGINS_HOST": host}
    done = forked.run(command, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_run_with_online_knn_is_evaluated_with_solo_learn(tmp_path: Path) -> None:
    """The evaluation died of torchmetrics' ``compute_on_step``, which the stand-in has not."""
    cfg = tiny_config(tmp_path, "gh_simclr", max_epochs=1, knn_eval={"enabled": True, "k": 2})
    OmegaConf.save(cfg, tmp_path / "own.yaml")
    run(["pretrain", "--config-path", ".", "--config-name", "own"], tmp_path, "solo")
    run(["evaluate", "run", "eval.linear=null", "eval.knn.k=3", "device=cpu"], tmp_path, "solo")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert "solo-learn" in results["host"]


def test_the_packaged_bases_are_the_stand_ins_with_a_file_each() -> None:
    assert packaged_bases() == sorted(METHOD_KWARGS) == sorted(NAMES)
    for name in packaged_bases():
        assert (ROOT / f"ltplugins/conf/method/{name}.yaml").exists()
        assert BASES[name].summary
        assert BASES[name].title
        assert BASES[name].paper.startswith("https://arxiv.org/abs/")


def test_a_base_that_nobody_knows_is_an_ordinary_one() -> None:
    facts = facts_of("somebodys")
    assert facts.yields_z
    assert facts.width_key == "proj_output_dim"
    assert not facts.temperature


def test_every_method_of_solo_learn_is_known() -> None:
    from solo.methods import METHODS as SOLO

    theirs = {n for n, c in SOLO.items() if c.__module__.startswith("solo.")}
    assert theirs == set(BASES)


for test in (
    test_a_run_with_online_knn_is_evaluated_with_solo_learn,
    test_every_method_of_solo_learn_is_known,
):
    test.pytestmark = needs_solo  # type: ignore[attr-defined]
