# SPDX-License-Identifier: MIT
"""BCL over every base: memory, strengths, resume, and the base's own loss."""

import lightning.pytorch as pl
import pytest
import torch

import ltplugins
from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from ltplugins.data.augment.strength import Boost
from ltplugins.host import METHODS
from ltplugins.losses.bcl import boost_strengths, image_losses
from ltplugins.methods.bcl import BCLConfig
from tests.kit.hosts import on_the_stand_in
from tests.kit.runs import build, fit, quiet_trainer
from tests.kit.tiny import tiny_config

ltplugins.register()
IMAGES, BATCHES = 42, 5


def bcl(folder, method="bcl_simclr", **changes):
    """``a=b`` sets method_kwargs.bcl.a, other keys as in ``tiny_config``."""
    ours = {k for k in changes if k in BCLConfig.__dataclass_fields__}
    own = {f"method_kwargs__bcl__{k}": changes.pop(k) for k in ours}
    return build(tiny_config(folder, method, **own, **changes))


class Watch(pl.Callback):
    """What was drawn, lost and remembered; the views as a checksum."""

    def __init__(self, stop_after=None, path=None):
        self.drawn, self.losses, self.views, self.memories, self.strengths = [], [], [], [], []
        self.stop_after, self.path = stop_after, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.drawn.append((trainer.current_epoch, batch[0].tolist()))
        self.losses.append(float(outputs["loss"]))
        self.views.append(float(sum(view.double().sum() for view in batch[1])))
        if len(self.drawn) == self.stop_after:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer, pl_module):
        self.strengths.append(pl_module.bcl_memory_strength.clone())
        self.memories.append((pl_module.bcl_memory.clone(), pl_module.bcl_memory_filled.clone()))


def watched(model, data, watch, ckpt=None, **kwargs):
    trainer = quiet_trainer(callbacks=[watch], max_epochs=model.max_epochs, **kwargs)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=ckpt)
    except (KeyboardInterrupt, SystemExit):
        assert watch.stop_after is not None
    return trainer


def assert_bcl_loss_is_simclrs(trainer):
    own, theirs = (trainer.callback_metrics[f"train_{k}_epoch"] for k in ("bcl_loss", "nce_loss"))
    assert float(own) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("engine", ["workers", "batched"])
@pytest.mark.parametrize(
    ("variant", "boost"),
    [("I", Boost(1, 10.0, False)), ("D", Boost(2, 5.0, True)), ("imagenet", Boost(2, 0.0, True))],
    ids=["I", "D", "imagenet"],
)
def test_both_engines_train_every_variant(engine, variant, boost, tmp_path):
    model, data = bcl(tmp_path, variant=variant, data__engine=engine)
    trainer = watched(model, data, Watch(), limit_train_batches=2)
    assert trainer.global_step == 6
    assert data.training.boost == boost


def test_the_first_epoch_is_the_bases_bit_for_bit(tmp_path):
    """No strength yet: RandAugment touches nothing, and no term joins the loss."""
    base, data = build(tiny_config(tmp_path, "simclr"))
    fit(base, data, max_epochs=1)
    model, data = bcl(tmp_path)
    fit(model, data, max_epochs=1)
    state = model.state_dict()
    for key, value in base.state_dict().items():
        assert torch.equal(value, state[key]), key
    longer, data = bcl(tmp_path)
    fit(longer, data, max_epochs=2)
    twice, data = build(tiny_config(tmp_path, "simclr"))
    fit(twice, data, max_epochs=2)
    key = "backbone.conv1.0.weight"
    assert not torch.equal(longer.state_dict()[key], twice.state_dict()[key])


def test_memory_and_strengths_are_those_of_the_steps(tmp_path, monkeypatch):
    """The moving average and the strengths again, with loops."""
    model, data = bcl(tmp_path, momentum=0.9)
    steps = []

    def recording(z_1, z_2, indexes, **kwargs):
        steps.append(image_losses(z_1, z_2, indexes, **kwargs))
        return steps[-1]

    monkeypatch.setattr("ltplugins.methods.bcl.image_losses", recording)
    told, tell = [], data.set_strength
    monkeypatch.setattr(data, "set_strength", lambda h: told.append(h.clone()) or tell(h))
    watch = Watch()
    trainer = watched(model, data, watch)
    expected = {}
    for step, ((_, indexes), values) in enumerate(zip(watch.drawn, steps, strict=True)):
        for i, value in zip(indexes, values.tolist(), strict=True):
            expected[i] = value if i not in expected else 0.9 * expected[i] + 0.1 * value
        if (step + 1) % BATCHES == 0:
            memory, filled = watch.memories[step // BATCHES]
            for i in range(IMAGES):
                assert memory[i].item() == pytest.approx(expected.get(i, 0.0), rel=1e-5)
                assert bool(filled[i]) == (i in expected)
    # Told once an epoch.
    assert len(told) == 3
    assert not told[0].any()
    for epoch in (1, 2):
        assert torch.equal(told[epoch], boost_strengths(*watch.memories[epoch - 1]))
        assert torch.equal(told[epoch], watch.strengths[epoch])
    # SimCLR's own loss is the mean of the images'.
    assert_bcl_loss_is_simclrs(trainer)


def test_the_views_follow_the_strengths(tmp_path, monkeypatch):
    """With all strengths at 0 the run is the base's, with all at 1 every later view is another."""
    base, data = build(tiny_config(tmp_path, "simclr"))
    plain = Watch()
    plain.on_train_epoch_end = lambda *args: None
    watched(base, data, plain)
    for h in (0.0, 1.0):
        monkeypatch.setattr(
            "ltplugins.methods.bcl.boost_strengths",
            lambda memory, filled, h=h: torch.full_like(memory, h) * filled.any(),
        )
        model, data = bcl(tmp_path)
        watch = Watch()
        watched(model, data, watch)
        assert watch.views[:BATCHES] == plain.views[:BATCHES]
        same = [a == b for a, b in zip(watch.views, plain.views, strict=True)][BATCHES:]
        assert same == [h == 0.0] * (2 * BATCHES)


@pytest.mark.parametrize(
    ("engine", "num_workers", "variant", "stop_after"),
    [
        ("batched", 0, "I", 5),
        ("batched", 1, "D", 8),
        ("workers", 0, "D", 10),
        ("workers", 1, "I", 13),
    ],
)
def test_resume_anywhere_equals_the_unbroken_run(
    engine, num_workers, variant, stop_after, tmp_path
):
    """4 epochs of 5 batches; 5 and 10 are last batches, before the end of their epoch."""
    changes = {"data__engine": engine, "data__num_workers": num_workers, "variant": variant}
    unbroken, data = bcl(tmp_path, max_epochs=4, **changes)
    whole = Watch()
    watched(unbroken, data, whole)

    path = tmp_path / "stop.ckpt"
    model, data = bcl(tmp_path, max_epochs=4, **changes)
    watched(model, data, Watch(stop_after, path))
    again, data = bcl(tmp_path, max_epochs=4, **changes)
    rest = Watch()
    watched(again, data, rest, ckpt=path)
    assert rest.drawn == whole.drawn[stop_after:]
    assert rest.views == whole.views[stop_after:]
    assert rest.losses == whole.losses[stop_after:]
    state = again.state_dict()
    for key, value in unbroken.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_a_sampler_with_replacement(tmp_path):
    model, data = bcl(tmp_path, data__sampler="class_aware")
    trainer = watched(model, data, Watch())
    assert_bcl_loss_is_simclrs(trainer)


FROZEN = [3.565941, 3.542526, 3.319491, 3.178591, 4.667867, 3.431020, 3.149878]


@on_the_stand_in
def test_frozen_losses(tmp_path):
    """Seven steps, the last two with boosted views. To recapture: print ``losses``.

    Boosted views have steps (8-bit pixels, whole-pixel shifts), which a last bit can move: another
    order of summation in NT-Xent alone changes these two losses by up to 0.6 %.
    """
    model, data = bcl(tmp_path)
    watch = Watch()
    fit(model, data, max_steps=7, callbacks=[watch])
    assert watch.losses[:5] == pytest.approx(FROZEN[:5], rel=1e-4)
    assert watch.losses[5:] == pytest.approx(FROZEN[5:], rel=2e-2)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"variantt": "I"}, r"bcl.variantt'. Did you mean 'variant'"),
        ({"variant": "J"}, r"bcl.variant: expected one of I, D"),
        ({"momentum": 1.0}, r"bcl.momentum: expected a number of 0 or more and below 1, got 1.0"),
        ({"temperature": 0.0}, r"bcl.temperature: expected a number above 0, got 0.0"),
        ({"ops": "torch"}, r"bcl.ops: expected one of bcl, torchvision"),
    ],
)
def test_bad_options_are_named(changes, text, tmp_path):
    own = {f"method_kwargs__bcl__{k}": v for k, v in changes.items()}
    with pytest.raises(UserError, match=text):
        build(tiny_config(tmp_path, "bcl_simclr", **own))


def test_the_hosts_own_main_is_refused(tmp_path):
    model, data = bcl(tmp_path)
    trainer = quiet_trainer(max_epochs=1)
    with pytest.raises(UserError, match=r"Run it with ltplugins pretrain or scripts/pretrain.py"):
        trainer.fit(model, data.train_dataloader())


def test_randaugment_of_the_yaml_is_refused(tmp_path):
    cfg = tiny_config(tmp_path, "bcl_simclr")
    cfg.augmentations[0].randaugment = {"prob": 0.5}
    model, data = build(cfg)
    with pytest.raises(UserError, match=r"randaugment.prob is 0.5, and the method sets"):
        fit(model, data)


def test_dummy_indexes_are_refused(tmp_path):
    cfg = resolve(tiny_config(tmp_path, "bcl_simclr", data__num_classes=3)).host
    cfg.data.format = "dali"
    with pytest.raises(UserError, match=r"bcl_simclr keeps a memory per image and needs true ind"):
        METHODS["bcl_simclr"](cfg)
