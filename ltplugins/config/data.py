# SPDX-License-Identifier: MIT
"""From a run's config to its data, where they lie now."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.core.ranges import AtLeast
from ltplugins.core.schema import OutOfRange, Section
from ltplugins.data.schema import BY_PATH, DataConfig
from ltplugins.data.training_set import TrainingSet


def training_set(run: RunConfig) -> TrainingSet:
    """What a run trains on.

    Raises:
        UserError: whatever does not fit in ``data``, ``augmentations``, ``dali`` or the batch size.
    """
    return TrainingSet(run.data, run.augmentations, run.optimizer.batch_size, dali=run.dali)


@dataclass(frozen=True)
class DataPaths(Section):
    """Keys of a run's ``data`` block that may be given anew; null leaves the run's own.

    For data that have been moved, or that came after the training, such as test images.
    """

    train_path: str | None = None
    val_path: str | None = None
    probe_path: str | None = None
    root: str | None = None
    format: Literal["image_folder", "file_list", "arrays", "hf"] | None = None
    no_labels: bool | None = None
    num_workers: Annotated[int, AtLeast(0)] | None = None
    on_corrupt: Literal["fail", "skip"] | None = None  # of a bank's images; of test images never

    def given(self) -> dict[str, Any]:
        """What is not null."""
        return {key: value for key, value in vars(self).items() if value is not None}

    def over(self, data: DataConfig) -> DataConfig:
        """A ``data`` block with what is given here in the place of its own.

        Raises:
            UserError: a path of a set that brings its own images.
        """
        named = data.dataset not in BY_PATH
        for key in ("val_path", "probe_path", "root", "format", "no_labels"):
            if named and getattr(self, key) is not None:
                raise UserError(
                    f"data.{key}: expected nothing, for {data.dataset} brings its own images; got "
                    f"{getattr(self, key)!r}. Leave it out."
                )
        try:
            return dataclasses.replace(data, **self.given())
        except OutOfRange as error:
            text = str(error).replace(f"{type(data).__name__}.", "data.", 1)
            raise UserError(f"{text} Leave it out.") from None
