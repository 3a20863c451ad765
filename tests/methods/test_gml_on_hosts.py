# SPDX-License-Identifier: MIT
"""GML on the real solo-learn: two steps in each mode, counts from the loader, validation."""

import warnings
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

import ltplugins
from ltplugins.core.errors import UserError
from ltplugins.stages.pretrain import pretrain
from tests.kit.hosts import needs_solo
from tests.kit.runs import quiet_trainer
from tests.kit.tiny import tiny_config
from tests.kit.views import VIEW

pytestmark = needs_solo

IMAGES, BATCH = 12, 4
TARGETS = [0] * 6 + [1] * 4 + [2] * 2


class Views(torch.utils.data.Dataset[Any]):
    """Noise, three views of 16 pixels; position i is index i."""

    def __init__(self, labelled: bool, train: bool = True) -> None:
        g = torch.Generator().manual_seed(0)
        self.views = [torch.randn(IMAGES, 3, 16, 16, generator=g) for _ in range(3)]
        self.train = train
        if labelled:
            self.targets = TARGETS

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, i: int) -> Any:
        if not self.train:
            return self.views[0][i], TARGETS[i]
        return torch.tensor(i), [view[i] for view in self.views], torch.tensor(TARGETS[i])


def two_steps(cfg: Any, labelled: bool = True) -> tuple[Any, pl.Trainer]:
    """Train as a host's own main does: its config knows no number of images."""
    from ltplugins.config.resolve import resolve
    from ltplugins.host import METHODS
    from ltplugins.host.solo import apply_fixes

    apply_fixes()
    ltplugins.register()
    cfg = resolve(cfg)
    cfg.data.num_classes = 5  # solo-learn's top-5 accuracy wants at least five
    torch.manual_seed(0)
    model = METHODS["gml"](cfg)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=1.0)
    loaders = [
        torch.utils.data.DataLoader(Views(labelled, train), batch_size=BATCH, shuffle=train)
        for train in (True, False)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, *loaders)
    return model, trainer


def test_momentum_mode(tmp_path: Any) -> None:
    model, trainer = two_steps(tiny_config(tmp_path, "gml", momentum__classifier=True))
    assert type(model).__mro__[4].__module__ == "solo.methods.base"
    for name in ("nce_loss", "gml_sup_loss", "class_loss", "momentum_class_loss"):
        assert torch.isfinite(trainer.callback_metrics[f"train_{name}_epoch"]), name
    assert model.class_counts.tolist() == [6, 4, 2, 0, 0]
    assert int(model.gml_queue.filled.sum()) > 0
    assert not torch.equal(model.projector[0].weight, model.momentum_projector[0].weight)


def test_class_counts_that_nobody_knows(tmp_path: Any) -> None:
    with pytest.raises(UserError, match=r"Set method_kwargs.class_counts to a list"):
        two_steps(tiny_config(tmp_path, "gml"), labelled=False)
    counts = [6, 4, 2, 0, 0]
    cfg = tiny_config(tmp_path, "gml", method_kwargs__class_counts=counts)
    model, _ = two_steps(cfg, labelled=False)
    assert model.class_counts.tolist() == counts


def test_teacher_mode_and_the_classifier_alone(tmp_path: Any) -> None:
    cfg = tiny_config(tmp_path, "gml", max_epochs=1, output_dir=str(tmp_path / "teacher"))
    cfg.augmentations = [{**VIEW, "num_crops": 1}]
    cfg.method_kwargs.contrast_weight = 0.0
    pretrain(cfg)
    student = tiny_config(tmp_path, "gml", max_epochs=1, output_dir=str(tmp_path / "student"))
    student.method_kwargs.update(teacher=str(tmp_path / "teacher"), distill_weight=1.0)
    run = pretrain(student)  # with validation, which asks momentum bases for their twin
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state["class_counts"].tolist() == [24, 12, 6]
    assert "key_projector.0.weight" in state
    assert not any(k.startswith("momentum_") for k in state)
