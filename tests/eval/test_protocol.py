# SPDX-License-Identifier: MIT
"""The whole evaluation on Gaussian classes whose best accuracy is known in closed form."""

import json
import math
import statistics
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.core.records import to_plain
from ltplugins.core.schema import parse
from ltplugins.eval.banks import Features
from ltplugins.eval.options import EvalConfig, KnnConfig, LinearConfig
from ltplugins.eval.protocol import evaluate_features
from ltplugins.eval.results import Stat
from ltplugins.eval.scores import mean_std

COUNTS = [500, 50, 5]
DISTANCE = 1.6
BEST = 0.5 * (1 + math.erf(DISTANCE / 2 / math.sqrt(2)))  # 0.788, two unit Gaussians


def gaussians(per_class: list[int], seed: int) -> Features:
    """Class 0 lies far off; classes 1 and 2 overlap so that the best rule hits 78.8 % of them."""
    centers = torch.zeros(3, 8)
    centers[0, 0], centers[1, 1], centers[2, 1] = 30.0, DISTANCE / 2, -DISTANCE / 2
    centers[:, 2] = 10.0  # away from the origin, so that directions mean something
    targets = torch.arange(3).repeat_interleave(torch.tensor(per_class))
    noise = torch.randn(len(targets), 8, generator=torch.Generator().manual_seed(seed))
    noise[:, 2:] *= 0.1
    return Features(centers[targets] + noise, targets)


def run(**change: Any) -> dict[str, Any]:
    """The scores as they are written."""
    cfg = EvalConfig(
        knn=KnnConfig(k=100, temperature=0.5),
        linear=LinearConfig(shots=[100, "full"]),
        groups=["tercile", "threshold"],
    )
    given: dict[str, Any] = {
        "train_bank": gaussians(COUNTS, 0),
        "probe": gaussians([200] * 3, 1),
        "test": gaussians([1000] * 3, 2),
        "class_counts": COUNTS,
        "cfg": cfg,
    } | change
    return to_plain(evaluate_features(**given))


def test_numbers_match_the_known_separability() -> None:
    results = run()
    assert list(results["protocols"]) == ["knn_k100_T0.5", "linear_100shot", "linear_full"]
    for name, entry in results["protocols"].items():
        tercile = entry["groups"]["tercile"]
        assert tercile["many"]["mean"] == pytest.approx(1.0, abs=0.005), name
        pair = (tercile["medium"]["mean"] + tercile["few"]["mean"]) / 2
        assert pair == pytest.approx(BEST, abs=0.03), name
        assert entry["overall"]["mean"] == pytest.approx((1 + 2 * BEST) / 3, abs=0.02), name
        assert entry["balanced"]["mean"] == pytest.approx(entry["overall"]["mean"])
        assert entry["per_class"][0] == pytest.approx(tercile["many"]["mean"])
        assert entry["groups"]["threshold"]["few"] == tercile["few"]  # same classes here
        assert tercile["group_std"]["mean"] > 0.08
    assert results["sizes"] == {"train": 555, "probe": 600, "test": 3000}
    assert results["notes"] == []
    assert json.loads(json.dumps(results)) == results


def test_repetitions_are_counted() -> None:
    protocols = run()["protocols"]
    assert protocols["knn_k100_T0.5"]["overall"]["n"] == 1
    assert protocols["knn_k100_T0.5"]["overall"]["std"] is None
    shots = protocols["linear_100shot"]
    assert shots["seeds"] == [0, 1, 2] and shots["overall"]["n"] == 3
    assert shots["overall"]["std"] > 0
    assert shots["n_train"] == 300 and protocols["linear_full"]["n_train"] == 600
    assert len(shots["chosen_c"]) == len(shots["converged"]) == 3


def test_training_images_as_bank_change_the_name_and_the_tail() -> None:
    cfg = EvalConfig(
        knn=KnnConfig(k=20, bank="train"), linear=LinearConfig(["full"], fit_on="train"), seeds=[0]
    )
    protocols = run(cfg=cfg, probe=None)["protocols"]
    assert list(protocols) == ["knn_k20_T0.07_trainset", "linear_full_trainset"]
    entry = protocols["knn_k20_T0.07_trainset"]
    assert "long-tailed training set (555 images)" in entry["description"]
    few, medium = (entry["groups"]["tercile"][g]["mean"] for g in ("few", "medium"))
    assert few < medium - 0.3  # 5 bank images against 50


def test_what_nobody_asked_for_is_what_the_data_allow() -> None:
    """A class of 61 and a bank of 12 images give other protocols, named and explained."""
    small = gaussians([200, 61, 90], 1)
    results = run(probe=small, cfg=EvalConfig(), class_names=["ant", "bee", "cat"])
    assert list(results["protocols"]) == ["knn_k20_T0.07", "linear_61shot"]
    assert results["protocols"]["linear_61shot"]["n_train"] == 183
    [note] = results["notes"]
    assert "61 images of each class, not on 100: class 'bee' has 61 labelled" in note
    assert "eval.linear.shots=[full]" in note
    for sizes, name, trained in (([7, 4, 1], "linear_full", 12), ([7, 5, 0], "linear_full", 12)):
        results = run(probe=gaussians(sizes, 1), cfg=EvalConfig())
        assert list(results["protocols"]) == ["knn_k12_T0.07", name]
        assert results["protocols"][name]["n_train"] == trained
        assert "k = 12 neighbours instead of 20" in results["notes"][0]
        assert f"class 2 has {sizes[2]} labelled" in results["notes"][1]
    plenty = run(cfg=EvalConfig())
    assert list(plenty["protocols"]) == ["knn_k20_T0.07", "linear_100shot"]
    assert plenty["notes"] == []


def test_probes_of_the_long_tailed_set() -> None:
    """Plain, the boundary lies within the class of 5 images; adjusted, before that of 50."""
    results = run(cfg=EvalConfig(knn=None, linear=None, linear_lt=[0, 1]))
    plain, adjusted = results["protocols"].values()
    assert list(results["protocols"]) == ["linear_lt", "linear_lt_tau1"]
    for entry in (plain, adjusted):
        assert entry["n_train"] == 555 and entry["seeds"] == [0]
        assert "all images of the long-tailed training set (555 images)" in entry["description"]
    assert "plain loss" in plain["description"]
    assert "logit-adjusted loss (tau = 1)" in adjusted["description"]
    few = [entry["groups"]["tercile"]["few"]["mean"] for entry in (plain, adjusted)]
    assert few[1] > few[0] + 0.2
    for entry in (plain, adjusted):  # the harmonic mean punishes the class that is given up
        assert entry["min_class"]["mean"] <= entry["harmonic"]["mean"] <= entry["balanced"]["mean"]
    assert adjusted["harmonic"]["mean"] > plain["harmonic"]["mean"]
    # Of the rare class's images plain takes more for one of the medium class.
    taken = [entry["confusion"]["tercile"][2] for entry in (plain, adjusted)]
    assert taken[0][1] > taken[1][1] + 200
    assert sum(taken[0]) == sum(taken[1]) == 1000
    with pytest.raises(UserError, match="needs the train set's features"):
        run(cfg=EvalConfig(knn=None, linear=None, linear_lt=[1]), train_bank=None)


def test_confidence_is_scored() -> None:
    """Unit Gaussians are what a logistic model says of them: its confidence is its accuracy."""
    results = run()
    assert results["protocols"]["linear_full"]["ece"]["mean"] < 0.05
    for entry in results["protocols"].values():
        groups = entry["group_ece"]["threshold"]
        assert set(groups) == {"many", "medium", "few"}
        assert entry["ece"]["mean"] <= sum(groups[g]["mean"] for g in groups) / 3 + 1e-6
    unknown = run(class_counts=None, num_classes=3)["protocols"]["linear_full"]
    assert unknown["group_ece"] == unknown["confusion"] == {}
    assert unknown["ece"]["mean"] < 0.05


def test_what_was_asked_for_is_not_changed() -> None:
    small = gaussians([200, 61, 90], 1)
    cfg = EvalConfig(knn=KnnConfig(k=400), linear=LinearConfig([100, 0.1]), seeds=[0])
    results = run(probe=small, cfg=cfg)
    assert list(results["protocols"]) == ["linear_10percent"]
    assert results["protocols"]["linear_10percent"]["n_train"] == 20 + 6 + 9
    assert list(results["failed"]) == ["knn_k400_T0.07", "linear_100shot"]
    assert "class 1 has 61" in results["failed"]["linear_100shot"]
    train = run(cfg=EvalConfig(knn=None, linear=LinearConfig(fit_on="train")))
    assert list(train["protocols"]) == ["linear_full_trainset"]


def test_probe_description_names_its_set() -> None:
    entry = run()["protocols"]["linear_100shot"]
    assert "100 images per class of the balanced probe set (600 images)" in entry["description"]
    assert "C chosen on 20% of them" in entry["description"]


def test_the_test_order_does_not_matter() -> None:
    test = gaussians([1000] * 3, 2)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    shuffled = Features(test.feats[order], test.targets[order])
    assert run(test=shuffled) == run(test=test)


def test_wrong_test_labels_change_scores_but_not_choices() -> None:
    test = gaussians([1000] * 3, 2)
    lied = run(test=Features(test.feats, test.targets.flip(0)))
    honest = run(test=test)
    for name in ("linear_100shot", "linear_full"):
        ours, theirs = honest["protocols"][name], lied["protocols"][name]
        assert ours["chosen_c"] == theirs["chosen_c"]
        assert ours["val_accuracy"] == theirs["val_accuracy"]
        assert ours["overall"]["mean"] > theirs["overall"]["mean"] + 0.2


def test_empty_group_is_na_with_a_note() -> None:
    cfg = EvalConfig(linear=None, groups=["threshold"])
    results = run(class_counts=[500, 300, 200], cfg=cfg)
    [entry] = results["protocols"].values()
    assert entry["groups"]["threshold"]["few"] == {"mean": None, "std": None, "n": 0}
    assert entry["groups"]["threshold"]["group_std"]["mean"] is None
    assert len(results["notes"]) == 2
    assert results["notes"][1].startswith("few is n/a under the threshold rule: no class has")


def test_class_without_test_images() -> None:
    test = gaussians([100, 100, 0], 2)
    results = run(test=test, cfg=EvalConfig(linear=None, groups=["tercile"]))
    [entry] = results["protocols"].values()
    assert entry["per_class"][2] is None
    assert "its classes (2) have no test image" in results["notes"][0]


def test_mean_std_by_hand() -> None:
    found = mean_std([0.5, 0.7, None])
    assert found.mean == pytest.approx(0.6)
    assert found.std == pytest.approx(statistics.stdev([0.5, 0.7]))
    assert found.n == 2
    assert mean_std([None]) == Stat(None, None, 0)


def test_config_is_parsed_and_checked() -> None:
    section = OmegaConf.create({"linear": {"shots": [5, "full"]}, "knn": None, "seeds": [4]})
    cfg = parse(EvalConfig, section, "eval")
    assert cfg.knn is None and cfg.linear is not None
    assert cfg.linear.shots == [5, "full"]
    assert parse(EvalConfig, None, "eval") == EvalConfig()
    with pytest.raises(UserError, match=r"unknown key 'eval.knn.temperatures'.*'temperature'"):
        parse(EvalConfig, {"knn": {"temperatures": 0.1}}, "eval")
    with pytest.raises(UserError, match=r"eval.groups\[0\]: expected one of threshold, tercile"):
        parse(EvalConfig, {"groups": ["thirds"]}, "eval")
    with pytest.raises(UserError, match=r"eval.linear.shots: expected a list of"):
        parse(EvalConfig, {"linear": {"shots": ["ful"]}}, "eval")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probe": None}, "needs the probe set's features"),
        ({"cfg": EvalConfig(groups=[])}, "eval.groups is empty"),
        ({"cfg": EvalConfig(seeds=[])}, "eval.seeds is empty"),
        ({"cfg": EvalConfig(knn=None, linear=None)}, "eval: expected a protocol, got none"),
        ({"class_counts": [5, 5]}, "test label 2 is outside 0..1"),
    ],
)
def test_bad_input(change: dict, words: str) -> None:
    with pytest.raises(UserError) as error:
        run(**change)
    assert words in str(error.value)


def test_the_runs_own_classifier_is_scored_by_group() -> None:
    """A rule written down by hand, on features whose best rule is known."""

    def classifier(feats: torch.Tensor) -> torch.Tensor:
        return torch.stack([feats[:, 0] - 15, feats[:, 1], -feats[:, 1]], dim=1)

    results = run(classifier=classifier)
    entry = results["protocols"]["classifier"]
    assert entry["overall"]["mean"] == pytest.approx((1 + 2 * BEST) / 3, abs=0.02)
    assert entry["groups"]["tercile"]["many"]["mean"] == 1.0
    assert entry["groups"]["tercile"]["few"]["mean"] == pytest.approx(BEST, abs=0.04)
    assert entry["overall"]["std"] is None
    assert entry["n_train"] == sum(COUNTS)
    json.dumps(results)
    only = EvalConfig(knn=None, linear=None)
    assert list(run(cfg=only, classifier=classifier)["protocols"]) == ["classifier"]
    off = EvalConfig(linear=None, classifier=False)
    assert "classifier" not in run(cfg=off, classifier=classifier)["protocols"]
