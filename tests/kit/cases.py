# SPDX-License-Identifier: MIT
"""What each wrapper and method of the registry needs to go through the matrix: one line each.

The matrix (tests/methods/matrix) takes every name through resume, ranks, bf16, engines, hosts and
frozen losses. A method's line says what its runs and its steps need; without it a test fails.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.kit.hosts import NAMES, SOLO_HEADS
from tests.kit.views import PLAIN, views

Kwargs = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run on generated arrays.

    Attributes:
        kwargs: ``method_kwargs.<name>`` of a wrapper, ``method_kwargs`` of a method.
        config: further keys, "__" for the dot.
        loss: a metric of every epoch, the method's own.
        keeps: entries of the checkpoint's state, beyond the host's.
        logs: further metrics of its metrics.csv.
        float32: tensors of the model that autocast leaves in float32.
        bf16: further keys of a run in bf16, where it is at its hardest.
        check: called with the model after a run in bf16.
        epochs: until everything of its own has taken part.
        engines: that it trains on.
    """

    kwargs: Kwargs = field(default_factory=dict)
    config: Kwargs = field(default_factory=dict)
    loss: str = "train_nce_loss"
    keeps: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    float32: tuple[str, ...] = ()
    bf16: Kwargs = field(default_factory=dict)
    check: Callable[[Any], None] = lambda model: None
    epochs: int = 1
    engines: tuple[str, ...] = ("batched", "workers", "dali")


@dataclass(frozen=True)
class Steps:
    """Two steps on a linear backbone, compared over ranks; :mod:`tests.kit.two_steps`.

    Attributes:
        kwargs, config: as in :class:`Run`.
        views: of an image.
        rows: how a batch is shared: by images, by pairs of neighbours, or by halves.
        ood: some images are of the OOD pool.
        labelled: every image has a label.
        prepare: called on the model before the first step, its networks exchanged.
        after: called on the model after each step; what it returns is compared as buffers are.
        check: called with the buffers of one process: the comparison means something.
    """

    kwargs: Kwargs = field(default_factory=dict)
    config: Kwargs = field(default_factory=dict)
    views: int = 2
    rows: Literal["images", "pairs", "halves"] = "images"
    ood: bool = False
    labelled: bool = False
    prepare: Callable[[Any], None] = lambda model: None
    after: Callable[[Any], Kwargs | None] = lambda model: None
    check: Callable[[Kwargs], None] = lambda buffers: None


@dataclass(frozen=True)
class Case:
    """A wrapper's or method's line.

    Attributes:
        refuses: of solo-learn's bases, and what is said of each.
        twins: bases with a momentum network that runs are made of.
    """

    run: Run = Run()
    steps: Steps = Steps()
    refuses: dict[str, str] = field(default_factory=dict)
    twins: tuple[str, ...] = ("mocov2plus",)

    def takes(self, bases: Iterable[str]) -> list[str]:
        """Those of the bases that the wrapper takes."""
        return [base for base in bases if base not in self.refuses]


# Of the bases that have none, or more than one.
NO_TEMPERATURE = (
    *("barlow_twins", "byol", "dino", "nnbyol", "nnsiam", "ressl"),
    *("simsiam", "vibcreg", "vicreg", "wmse"),
)
TWO_BRANCHES = ("all4one", "ressl")


def prior_is_set(buffers: Kwargs) -> None:
    assert buffers["gh_prior"].std() > 0.01
    assert buffers["gh_memory_filled"].sum() >= 8


def some_are_remembered(buffers: Kwargs) -> None:
    assert 4 <= buffers["colt_memory_filled"].sum() < 13  # OOD images leave no trace


def strengths(model: Any) -> Kwargs:
    """What BCL tells the data module at an epoch's start."""
    told: Kwargs = {}

    class Data:
        def set_strength(self, value: Any) -> None:
            told["strengths"] = value.clone()

    model._trainer.datamodule = Data()
    model.bcl_strength_for.fill_(-1)  # of another epoch: they are due
    model.on_train_epoch_start()
    return told


def strengths_differ(buffers: Kwargs) -> None:
    filled = buffers["bcl_memory_filled"]
    assert filled.sum() >= 8
    assert buffers["strengths"][filled].std() > 0.1


def at_its_lowest(model: Any) -> None:
    assert abs(model.temperature - 0.05) < 1e-6


def centroids_are_unit(model: Any) -> None:
    assert ((model.iccl_centroids.norm(dim=1) - 1).abs() < 1e-5).all()


def prune(model: Any) -> None:
    """SDCLR's mask of the linear backbone, which has no BatchNorm to copy."""
    from torch import nn

    from ltplugins.methods.sdclr import SDCLRMixin

    model.sdclr_norms = nn.Module()
    model._allocate_masks()
    SDCLRMixin.on_train_epoch_start(model)


WRAPPERS = {
    "gh": Case(
        Run(
            {"num_directions": 5, "warmup": 1, "ramp": 1, "num_iters": 20, "prior_interval": 1},
            loss="train_gh_loss",
            keeps=("gh_memory", "gh_memory_filled", "gh_prior"),
            float32=("gh_memory",),
            epochs=2,
        ),
        Steps(
            {"num_directions": 3, "warmup": 0, "ramp": 0, "num_iters": 20},
            after=lambda model: model.recompute_prior(),
            check=prior_is_set,
        ),
        twins=("byol", "mocov2plus"),
    ),
    "mv": Case(
        Run({"lower": 0.02, "upper": 0.5}, {"augmentations": views(3)}, loss="train_mv_kept"),
        Steps({"lower": 0.02, "upper": 0.99}, views=3),
    ),
    "colt": Case(
        Run(
            {"topk": 4, "warmup": 1, "interval": 2, "budget": 8, "num_clusters": 3},
            {"data__sampler": "id_plus_ood"},
            loss="train_colt_loss",
            keeps=("colt_memory", "colt_selected_for"),
            float32=("colt_memory",),
            epochs=3,
        ),
        Steps(
            {"topk": 4, "warmup": 1, "interval": 2, "budget": 5, "num_clusters": 3},
            {"data__ood": {"dataset": "emoji_pack"}, "data__sampler": "id_plus_ood"},
            ood=True,
            check=some_are_remembered,
        ),
        refuses={"deepclusterv2": "a memory of one epoch's size"},
    ),
    "ts": Case(
        # Not 0.01: the stand-in's NT-Xent takes it, solo-learn's sums raw exponentials.
        Run(
            {"t_max": 2},
            loss="train_ts_temperature",
            bf16={"ts__temperature_min": 0.05},
            check=at_its_lowest,
        ),
        refuses={base: f"{base} has no single temperature" for base in NO_TEMPERATURE},
    ),
    "sdclr": Case(
        Run(
            {"prune_ratio": 0.6},
            loss="train_sdclr_sparsity",
            keeps=("sdclr_masks.", "sdclr_norms.", "sdclr_epoch"),
        ),
        Steps(prepare=prune),
        twins=("byol",),
        refuses={b: f"sdclr_{b}: {b} .* Take another base" for b in TWO_BRANCHES},
    ),
    "bcl": Case(
        Run(
            {"variant": "I", "temperature": 0.2},
            loss="train_bcl_loss",
            keeps=("bcl_memory", "bcl_memory_filled"),
            float32=("bcl_memory",),
            epochs=3,
            engines=("batched", "workers"),
        ),
        Steps({"temperature": 0.2}, after=strengths, check=strengths_differ),
    ),
}
HEADS = {"proj_hidden_dim": 16, "proj_output_dim": 8}
METHODS = {
    "mttv": Case(
        Run(
            HEADS,
            {
                "data__sampler": "paired",
                "momentum__final_tau": 0.9,
                "augmentations": [PLAIN, *views(1)],
            },
            keeps=("momentum_projector.0.weight",),
            logs=("train_acc1_epoch",),
        ),
        Steps(config={"data__sampler": "paired"}, rows="pairs"),
    ),
    "focal": Case(
        Run(HEADS, logs=("train_focal_weight_epoch",), bf16={"temperature": 0.01}),
    ),
    "iccl": Case(
        Run(
            HEADS,
            {"data__sampler": {"name": "two_branch", "gamma": 0.5}},
            loss="train_centroid_loss",
            keeps=("iccl_updates", "iccl_centroids"),
            logs=("train_acc1_epoch", "train_mixup_loss_epoch", "val_acc1"),
            float32=("iccl_centroids",),
            check=centroids_are_unit,
        ),
        Steps(
            {"curriculum": "constant"},
            {"data__sampler": "two_branch"},
            rows="halves",
            labelled=True,
        ),
    ),
    "gml": Case(
        Run(
            {**HEADS, "queue_size": 16},
            {"momentum__final_tau": 0.9, "augmentations": views(1, 2)},
            keeps=("class_counts", "gml_log_temperature", "gml_queue."),
            logs=("train_gml_sup_loss_epoch", "train_gml_temperature_epoch"),
            float32=("gml_queue.feats",),
        ),
        Steps({"queue_size": 16, "class_counts": [5, 4, 4]}, views=3, labelled=True),
    ),
}
COMPOSED = ("gh_colt_simclr", "gh_ts_simclr", "gh_sdclr_simclr", "bcl_sdclr_simclr")


def names() -> list[str]:
    """Every method: the host's bases, each wrapper over each, and our own."""
    return [*NAMES, *wrapped(NAMES), *COMPOSED, *METHODS]


def wrapped(bases: Iterable[str]) -> list[str]:
    """Each wrapper over each of the bases that it takes."""
    return [f"{w}_{base}" for w, case in WRAPPERS.items() for base in case.takes(bases)]


def over_simclr() -> list[str]:
    """Every wrapper once, the composed ones, and our own methods."""
    return [*(f"{wrapper}_simclr" for wrapper in WRAPPERS), *COMPOSED, *METHODS]


def run_names() -> list[str]:
    """Those that are broken and continued: a wrapper over a base with a twin, too."""
    twins = [f"{wrapper}_{base}" for wrapper, case in WRAPPERS.items() for base in case.twins]
    return [*NAMES, *twins, *over_simclr()]


def base_of(name: str) -> str:
    """The base's name, or a method's own."""
    bases = (*NAMES, *SOLO_HEADS)
    return next((base for base in bases if name == base or name.endswith(f"_{base}")), name)


def wrappers_of(name: str) -> list[str]:
    """Its wrappers, the outermost first."""
    prefix = name.removesuffix(base_of(name))
    return [wrapper for wrapper in prefix.split("_") if wrapper]


def case_of(name: str) -> Case:
    """Its line; of composed wrappers the innermost says what the data are."""
    return cases_of(name)[-1]


def cases_of(name: str) -> list[Case]:
    """The lines of a method, or of each of its wrappers."""
    lines = [WRAPPERS[wrapper] for wrapper in wrappers_of(name)]
    return lines or [METHODS.get(name, Case())]
