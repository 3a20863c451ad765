# SPDX-License-Identifier: MIT
"""The sections of a run's YAML that every method shares: solo-learn's keys and defaults."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ltplugins.core.ranges import AtLeast, FolderName, Note, Seed, UpTo, Within
from ltplugins.core.schema import Section

# Lightning's: a number of processes (-1: all there are), their numbers, or text such as "auto".
Devices = Annotated[int, AtLeast(1, also=-1)] | list[Annotated[int, AtLeast(0)]] | str | None
# Lightning's: a number of batches, or a share of them.
Batches = Annotated[int, AtLeast(0)] | Annotated[float, Within(0, 1)] | None
# A training without a batch would count as one.
TrainBatches = Annotated[int, AtLeast(1)] | Annotated[float, UpTo(0, 1)] | None


@dataclass
class RunKeys(Section):
    """The keys at the top of a config that are ours or solo-learn's, and no section.

    ``rank_timeout`` is the seconds that a rank waits for the others; null: 30 minutes.
    ``overwrite`` replaces another run in the folder; ``resume_from_checkpoint`` is a checkpoint or
    the folder of a run, to go on from by this config.
    """

    method: str
    max_epochs: Annotated[int, AtLeast(1)]
    # Absent: of the data set, or of the folder that is trained on.
    name: Annotated[str, FolderName()] | None = None
    seed: Seed = 5
    accumulate_grad_batches: Annotated[int, AtLeast(1)] | None = None
    output_dir: str | None = None
    resume_from_checkpoint: str | None = None
    debug_augmentations: bool = False
    rank_timeout: Annotated[int, AtLeast(1)] | None = None
    overwrite: bool = False


@dataclass
class TrainerKeys(Section):
    """Arguments of Lightning's Trainer that hold numbers; null is Lightning's own default."""

    devices: Devices = None
    num_nodes: Annotated[int, AtLeast(1)] = 1
    min_epochs: Annotated[int, AtLeast(0)] | None = None
    max_steps: Annotated[int, AtLeast(1, also=-1)] = -1
    max_time: (
        Annotated[str, Note('"days:hours:minutes:seconds", in quotes')] | dict[str, int] | None
    ) = None
    min_steps: Annotated[int, AtLeast(0)] | None = None
    limit_train_batches: TrainBatches = None
    limit_val_batches: Batches = None
    overfit_batches: Annotated[int, AtLeast(0)] | Annotated[float, Within(0, 1)] = 0.0
    fast_dev_run: bool | Annotated[int, AtLeast(0)] = False
    val_check_interval: (
        Annotated[int, AtLeast(1)] | Annotated[float, UpTo(0, 1)] | str | dict[str, Any] | None
    ) = None
    check_val_every_n_epoch: Annotated[int, AtLeast(1)] | None = 1
    num_sanity_val_steps: Annotated[int, AtLeast(0, also=-1)] | None = None
    log_every_n_steps: Annotated[int, AtLeast(0)] | None = None
    gradient_clip_val: Annotated[float, AtLeast(0)] | None = None
    reload_dataloaders_every_n_epochs: Annotated[int, AtLeast(0)] = 0


@dataclass
class BackboneConfig(Section):
    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    small_stem: bool | None = None
    pretrained: bool | str = False  # true: the library's weights; or a file, or a run folder


@dataclass
class OptimizerConfig(Section):
    name: str
    batch_size: Annotated[int, AtLeast(2)]  # of each process; one image has nothing beside it
    lr: Annotated[float, AtLeast(0)]  # for 256 images
    classifier_lr: Annotated[float, AtLeast(0)]
    weight_decay: Annotated[float, AtLeast(0)]
    exclude_bias_n_norm_wd: bool = False
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class SchedulerConfig(Section):
    """``lr_decay_steps`` are epochs; ``warmup_epochs`` may be a fraction of one."""

    name: str
    lr_decay_steps: list[Annotated[int, AtLeast(0)]] | None = None
    min_lr: Annotated[float, AtLeast(0)] = 0.0
    warmup_start_lr: Annotated[float, AtLeast(0)] = 3e-5
    warmup_epochs: Annotated[float, AtLeast(0)] = 10
    interval: Literal["step", "epoch"] = "step"


@dataclass
class KnnConfig(Section):
    enabled: bool = False
    k: Annotated[int, AtLeast(1)] = 20
    distance_func: Literal["cosine", "euclidean"] = "euclidean"


@dataclass
class PerformanceConfig(Section):
    disable_channel_last: bool = False


@dataclass
class MomentumConfig(Section):
    """EMA factor: from ``base_tau`` to ``final_tau`` along a cosine over the whole run."""

    base_tau: Annotated[float, Within(0, 1)] = 0.99
    final_tau: Annotated[float, Within(0, 1)] = 1.0
    classifier: bool = False

    def refusals(self) -> Iterator[tuple[str, str]]:
        """The factor rises."""
        if not self.base_tau <= self.final_tau:
            yield "base_tau", f"a number of at most momentum.final_tau ({self.final_tau:g})"


@dataclass
class CheckpointSection(Section):
    """``checkpoint``; the last epoch is always saved, unless ``enabled`` is false.

    Without checkpoints a run cannot be continued or evaluated. ``previous`` keeps the one before
    ``last.ckpt``, to go on from where that is damaged; ``keep_prev`` keeps all.
    """

    enabled: bool = True
    dir: str = "runs"
    frequency: Annotated[int, AtLeast(1)] = 1
    keep_prev: bool = False
    previous: bool = True


@dataclass
class AutoResumeSection(Section):
    """``auto_resume``; max_hours is solo-learn's and has no effect here."""

    enabled: bool = True
    max_hours: Annotated[int, AtLeast(1)] = 36


@dataclass
class WandbSection(Section):
    """``wandb``: whether and where Weights & Biases logs a run."""

    enabled: bool = False
    entity: str | None = None
    project: str | None = "solo-learn"
    offline: bool = False


@dataclass
class HealthSection(Section):
    """``health``: whether, and how often, the features' health is logged while training.

    ``health: true`` is a block with the defaults; a block that does not say ``enabled: false`` is
    on. ``images`` are those of all ranks together, from the last batches of an epoch.
    """

    enabled: bool = False
    every: Annotated[int, AtLeast(1)] = 1  # epochs
    images: Annotated[int, AtLeast(2)] = 1024


@dataclass
class AutoUmapSection(Section):
    """``auto_umap``: accepted so that solo-learn's files load; the report draws embeddings."""

    enabled: bool = False
    dir: str = "auto_umap"
    frequency: Annotated[int, AtLeast(1)] = 1
