# SPDX-License-Identifier: MIT
"""Evaluated runs of many methods without any training: accuracies per class, drawn from a seed.

Legend: C classes.
"""

from collections.abc import Sequence

import numpy as np

from ltplugins.eval.gallery import Gallery, pick_queries
from ltplugins.eval.results import GroupMembers, ProtocolResult, Scores, Sizes, Stat
from ltplugins.metrics.groups import GROUPS, rank_classes
from ltplugins.report.evaluated import RunResult

METHODS = (
    *("simclr", "gh_simclr", "colt_simclr", "mv_simclr", "ts_simclr", "bcl_simclr", "sdclr_simclr"),
    *("mttv", "focal", "gh_colt_simclr", "gh_ts_simclr", "iccl", "gml"),
)
PROTOCOLS = ("knn_k20_T0.07", "linear_100shot")
NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
COUNTS = (1500, 899, 539, 323, 193, 116, 69, 41, 25, 15)
TEST_IMAGES = 1000  # of each class
LABELLED = ("iccl", "gml")


def study(
    methods: Sequence[str] = METHODS, pairs: int = 2, protocols: Sequence[str] = PROTOCOLS
) -> list[RunResult]:
    """One run of each method on each pair, a seed with a class order of its own."""
    return [make_run(name, pair, protocols) for name in methods for pair in range(1, pairs + 1)]


def make_run(method: str, pair: int, protocols: Sequence[str] = PROTOCOLS) -> RunResult:
    """A run whose accuracy depends on class, rank, method and chance."""
    place = METHODS.index(method) if method in METHODS else len(METHODS)
    order = np.random.default_rng(pair).permutation(len(COUNTS))
    counts = [COUNTS[k] for k in np.argsort(order)]
    rng = np.random.default_rng([pair, place])
    hard = np.random.default_rng(0).uniform(0.4, 0.95, len(COUNTS))
    rank = np.empty(len(COUNTS))
    rank[rank_classes(counts)] = np.linspace(0, 1, len(COUNTS))
    gain = 0.008 * ((place * 5 + 3) % 7 - 3) * (0.5 + rank) + 0.08 * (method in LABELLED)
    scores, right_of = {}, {}
    for name in protocols:
        right = np.clip(hard - 0.1 * rank + gain + rng.normal(0, 0.012, len(COUNTS)), 0, 1)
        right_of[name] = right
        scores[name] = protocol(np.round(right * TEST_IMAGES) / TEST_IMAGES, counts)
    steps = np.arange(1, 61) * 15
    loss = 4 + 1.5 * np.exp(-steps / 300) + 0.05 * place
    run = RunResult(
        f"runs/{method},pair={pair}",
        Scores(
            protocols=scores,
            groups={"tercile": _members(counts)},
            class_counts=counts,
            sizes=Sizes(sum(COUNTS), 1000, TEST_IMAGES * len(COUNTS)),
            notes=[],
            test_counts=[TEST_IMAGES] * len(COUNTS),
        ),
        group_key=method,
        pair_key=f"permutation {pair}, seed {pair}",
        curves={"train_nce_loss": (steps.tolist(), loss.tolist())},
        class_names=list(NAMES),
        config=f"method: {method}\nseed: {pair}\n",
        info={"data": f"fashion_pack, class_order {pair}", "seed": str(pair)},
        short_name=f"{method},pair={pair}",
        sees_labels=method in LABELLED,
        gallery=make_gallery(counts, right_of[protocols[0]], rng, "colt" in method),
        cost={"hours": 0.3 + 0.05 * ((place * 3) % 5), "steps": 840.0 - 20 * (place % 3)},
    )
    return run


def make_gallery(
    counts: Sequence[int], right: np.ndarray, rng: np.random.Generator, has_pool: bool
) -> Gallery:
    """Four images of each class, of one grey, with votes of about this accuracy."""
    targets = np.arange(len(counts)).repeat(4)

    def voted(true: np.ndarray) -> np.ndarray:
        return np.where(rng.random(true.shape) < right[true], true, (true + 3) % len(counts))

    def drawn(labels: np.ndarray) -> np.ndarray:
        images = np.zeros((*labels.shape, 6, 6, 3), dtype=np.uint8)
        return images + (20 * labels[..., None, None, None]).astype(np.uint8)

    queries = pick_queries(targets, counts)
    near = voted(targets[queries, None].repeat(5, axis=1))
    about = {"test": "made up", "protocol": PROTOCOLS[0], "bank": "probe"}
    places = np.arange(len(targets)) * 7
    found = Gallery(about, places, targets, drawn(targets), voted(targets), queries)
    found.near_images, found.near_targets = drawn(near), near
    if has_pool:
        found.pool_sizes = np.array([7, 0, 12])
        found.pool_clusters = np.array([0, 0, 2])
        found.pool_images = drawn(np.array([1, 2, 3]))
    return found


def protocol(right: np.ndarray, counts: Sequence[int]) -> ProtocolResult:
    """What a protocol says where Float[C] of each class's images are right."""
    members = _members(counts)
    means = {name: float(right[members.of(name)].mean()) for name in GROUPS}
    groups = {name: _stat(mean) for name, mean in means.items()}
    groups["group_std"] = _stat(float(np.std(list(means.values()))))
    return ProtocolResult(
        kind="knn",
        description="made up for tests",
        settings={},
        n_train=1000,
        seeds=[],
        n=1,
        overall=_stat(float(right.mean())),
        balanced=_stat(float(right.mean())),
        class_std=_stat(float(right.std())),
        groups={"tercile": groups},
        per_class=right.tolist(),
        harmonic=_stat(float(len(right) / (1 / right.clip(1e-9)).sum())),
        min_class=_stat(float(right.min())),
    )


def _stat(mean: float) -> Stat:
    return Stat(mean, None, 1)


def _members(counts: Sequence[int]) -> GroupMembers:
    order = [int(c) for c in rank_classes(counts)]
    parts = [sorted(part.tolist()) for part in np.array_split(order, 3)]
    return GroupMembers("thirds", *parts)
