# SPDX-License-Identifier: MIT
"""GML with a frozen teacher, its own classifier in the evaluation, and what needs both."""

import json
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.losses.terms.distillation import distillation_loss
from ltplugins.methods.parts.class_prior import training_class_counts
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.report import report
from tests.kit.linear import views_batch
from tests.kit.runs import assert_resumes, build, fit, interrupted, load, step
from tests.kit.tiny import tiny_config, write_arrays
from tests.kit.views import VIEW

COUNTS = [24, 12, 6]


def evaluation(run, **changes):
    cfg = compose_packaged("evaluate", [f"run={run}"])
    OmegaConf.set_struct(cfg, False)
    cfg.eval.knn.k, cfg.eval.linear.shots, cfg.eval.seeds = 3, [4], [0]
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    return evaluate(cfg)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a trained gml (the teacher), its student and a simclr run."""
    folder = tmp_path_factory.mktemp("teacher")
    pretrain(tiny_config(folder, "gml", output_dir=str(folder / "gml"), max_epochs=2, name="first"))
    student = student_config(folder, folder / "gml", max_epochs=2, name="second")
    pretrain(student)
    simclr = tiny_config(folder, "simclr", max_epochs=1, output_dir=str(folder / "simclr"))
    pretrain(simclr)
    return folder


def student_config(folder, teacher, **changes):
    changes = {"output_dir": str(folder / "student"), **changes}
    cfg = tiny_config(folder, "gml", **changes)
    cfg.method_kwargs.update(teacher=str(teacher), distill_weight=1.0)
    return cfg


def test_the_teacher_is_frozen_and_the_key_mlp_learns(runs):
    model, _ = build(student_config(runs, runs / "gml"))
    torch.testing.assert_close(model.key_projector.state_dict(), model.projector.state_dict())
    model.set_class_counts(torch.tensor(COUNTS))
    model.train()
    batch = views_batch()
    batch[1] = [view.float() for view in batch[1]]
    for _ in range(2):
        model.zero_grad()
        step(model, batch).backward()
    grads = {k.split(".")[0] for k, p in model.named_parameters() if p.grad is not None}
    online = {"backbone", "projector", "cosine_classifier", "classifier", "gml_log_temperature"}
    assert grads == {*online, "key_projector"}
    assert model.momentum_pairs == []
    assert not any(k.startswith(("momentum_", "gml_teacher")) for k in model.state_dict())
    names = [g["name"] for g in model.learnable_params]
    assert names[-3:] == ["projector", "key_projector", "temperature"]
    # Frozen in eval mode: the same features as from the teacher's own checkpoint, twice.
    teacher = model.gml_teacher
    state = load(runs / "gml/checkpoints/last.ckpt")["state_dict"]
    own = teacher._model.state_dict()
    for key in (k for k in state if k.startswith(("backbone.", "cosine_classifier."))):
        assert torch.equal(own[key], state[key]), key
    assert not teacher._model.training
    stored = model.gml_queue.stored()
    feats = teacher.feats(batch[1][2])
    torch.testing.assert_close(stored.feats, feats[stored.indexes], rtol=1e-5, atol=1e-6)
    assert teacher.logits(batch[1][0]).abs().max() <= 30.001


def test_distillation_is_of_the_first_view(runs):
    losses = {}
    for weight in (0.0, 2.0):
        cfg = student_config(runs, runs / "gml")
        cfg.method_kwargs.update(distill_weight=weight, class_counts=COUNTS)
        model, _ = build(cfg)
        model.eval()  # BatchNorm as stored: the order of the forwards does not matter
        batch = views_batch()
        batch[1] = [view.float() for view in batch[1]]
        losses[weight] = step(model, batch)
    teacher = model.gml_teacher.logits(batch[1][0])
    kd = distillation_loss(
        model.class_logits(model.backbone(batch[1][0])), teacher, temperature=4.0
    )
    torch.testing.assert_close(losses[2.0] - losses[0.0], 2 * kd, rtol=1e-4, atol=1e-4)
    assert kd > 0


def test_the_students_start_does_not_depend_on_its_teacher(runs):
    states = []
    for change in ({}, {"teacher": None, "distill_weight": 0.0}):
        cfg = student_config(runs, runs / "gml")
        cfg.method_kwargs.update(change)
        states.append(build(cfg)[0].state_dict())
    for key in (k for k in states[0] if k.startswith(("backbone.", "cosine_", "projector."))):
        assert torch.equal(states[0][key], states[1][key]), key


def test_a_self_supervised_teacher_without_distillation(runs):
    cfg = student_config(runs, runs / "simclr/checkpoints/last.ckpt")
    with pytest.raises(UserError, match="simclr has no classifier of its own to learn from"):
        build(cfg)
    cfg.method_kwargs.distill_weight = 0.0
    model, data = build(cfg)
    trainer = fit(model, data, max_epochs=1)
    assert torch.isfinite(trainer.callback_metrics["train_nce_loss_epoch"])
    assert "train_gml_kd_loss_epoch" not in trainer.callback_metrics


def test_a_teacher_alone_without_contrast(runs):
    """Plain distillation: one view."""
    cfg = student_config(runs, runs / "gml")
    cfg.method_kwargs.contrast_weight = 0.0
    cfg.augmentations = [{**VIEW, "num_crops": 1}]
    model, data = build(cfg)
    assert torch.isfinite(fit(model, data, max_epochs=1).callback_metrics["train_gml_kd_loss"])
    with torch.no_grad():
        assert torch.equal(
            model.momentum_forward(torch.zeros(1, 3, 16, 16))["feats"],
            model.gml_teacher.feats(torch.zeros(1, 3, 16, 16)),
        )


def test_a_resumed_student_equals_the_unbroken_one(runs, tmp_path, monkeypatch):
    config = partial(student_config, runs, runs / "gml", max_epochs=3, log_every_n_steps=1)
    assert_resumes(config, tmp_path, monkeypatch, breaks=[(1, 2)])


def test_another_teacher_is_refused_on_resume(runs, tmp_path, monkeypatch):
    teacher = tmp_path / "teacher.ckpt"
    shutil.copy(runs / "gml/checkpoints/last.ckpt", teacher)
    cfg = student_config(runs, teacher, output_dir=str(tmp_path / "run"))
    interrupted(cfg, 1, 2, monkeypatch)
    shutil.copy(runs / "student/checkpoints/last.ckpt", teacher)
    with pytest.raises(UserError, match="trained with a teacher of hash"):
        pretrain(cfg)


def test_other_data_are_refused_on_resume(tmp_path):
    model, data = build(tiny_config(tmp_path, "gml"))
    model.class_counts.copy_(torch.tensor([10, 10, 22]))
    text = r"per class are \(24, 12, 6; 42 in all\), but \(10, 10, 22; 42 in all\)"
    with pytest.raises(UserError, match=text):
        fit(model, data, max_epochs=1)


def test_unlabelled_images_are_refused(tmp_path):
    model, data = build(tiny_config(tmp_path, "gml"))
    model.num_samples = 50
    with pytest.raises(UserError, match="8 of 50 training images have none"):
        fit(model, data, max_epochs=1)


class Plain(torch.utils.data.Dataset):
    """What a host's own main loads; with or without labels that can be read."""

    def __init__(self, labels=None, samples=None):
        self.n = 6
        if labels is not None:
            self.targets = labels
        if samples is not None:
            self.samples = samples

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return i


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (Plain([0, 0, 0, 1, 1, 2]), [3, 2, 1]),
        (Plain(torch.tensor([0, 0, 0, 1, 1, -1])), [3, 2, 0]),
        # solo-learn's data.fraction shortens the samples alone.
        (Plain(list(range(3)) * 9, [("path", c) for c in (2, 2, 2, 2, 0, 0)]), [2, 0, 4]),
        (torch.utils.data.Subset(Plain([0, 0, 0, 1, 1, 2]), [3, 4, 5]), [0, 2, 1]),
        (Plain(), None),
        (None, None),
    ],
)
def test_class_counts_of_any_data_set(dataset, expected):
    loader = SimpleNamespace(dataset=dataset)
    found = training_class_counts(SimpleNamespace(train_dataloader=loader), 3)
    assert (None if found is None else found.tolist()) == expected
    data = SimpleNamespace(class_counts=np.array([5, 4, 3]))
    assert training_class_counts(SimpleNamespace(datamodule=data), 3).tolist() == [5, 4, 3]


def test_the_own_classifier_is_scored_where_there_is_one(runs):
    results = {name: evaluation(runs / name) for name in ("gml", "student", "simclr")}
    protocols = [set(r.protocols) for r in results.values()]
    assert protocols[0] == protocols[1] == {"classifier", "knn_k3_T0.07", "linear_4shot"}
    assert protocols[2] == {"knn_k3_T0.07", "linear_4shot"}
    entry = results["gml"].protocols["classifier"]
    assert "own classifier, learned with its features on the training set (42" in entry.description
    assert (entry.n, entry.seeds, len(entry.per_class)) == (1, [], 3)
    # By hand: the network of the checkpoint on the test images.
    model, data = build(tiny_config(runs, "gml"))
    model.load_state_dict(load(runs / "gml/checkpoints/last.ckpt")["state_dict"])
    model.eval()
    with torch.no_grad():
        hits = [
            model.cosine_classifier(model.backbone(x)).argmax(1) == y
            for x, y in data.val_dataloader()
        ]
    accuracy = torch.cat(hits).float().mean().item()
    assert entry.overall.mean == pytest.approx(accuracy)
    (runs / "gml/results.json").unlink()  # or what is there would be kept beside the new
    assert "classifier" not in evaluation(runs / "gml", eval__classifier=False).protocols
    evaluation(runs / "gml")


def test_a_students_evaluation_does_not_need_its_teacher(runs, tmp_path):
    shutil.copytree(runs / "gml", tmp_path / "teacher")
    cfg = student_config(runs, tmp_path / "teacher", output_dir=str(tmp_path / "run"))
    run = pretrain(cfg)
    shutil.rmtree(tmp_path / "teacher")
    assert "classifier" in evaluation(run).protocols


@pytest.mark.parametrize("change", ["missing", "left over", "another shape"])
def test_weights_of_the_classifier_are_loaded_strictly(change, runs, tmp_path):
    content = load(runs / "gml/checkpoints/last.ckpt")
    state = content["state_dict"]
    if change == "missing":
        del state["cosine_classifier.weight"]
    elif change == "left over":
        state["cosine_classifier.bias"] = torch.zeros(3)
    else:
        state["cosine_classifier.weight"] = torch.zeros(4, 4)
    torch.save(content, tmp_path / "cut.ckpt")
    text = "does not fit method gml: .*(cosine_classifier|" + change + ")"
    with pytest.raises(UserError, match=text):
        evaluation(tmp_path / "cut.ckpt")


def test_report_beside_a_run_without_a_classifier(runs, tmp_path):
    """Runs of one method on the same split and seed are no repetitions: a row says what differs."""
    for name in ("gml", "student", "simclr"):
        evaluation(runs / name)
    page = report([runs / "simclr", runs / "gml", runs / "student"], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| gml (distill_weight=null, teacher=null) |" in text
    assert "| gml (distill_weight=1.0, teacher=" in text
    section = text[text.index("## classifier") :]
    assert "| simclr | n/a | n/a | n/a | n/a | n/a | n/a |" in section
    assert "own classifier" in page.read_text()


def test_a_teacher_of_other_classes(runs, tmp_path):
    write_arrays(tmp_path / "train.npz", (10, 10, 10, 10))
    write_arrays(tmp_path / "test.npz", (4, 4, 4, 4))
    with pytest.raises(UserError, match="tells 3 classes apart, the data have 4"):
        build(student_config(tmp_path, runs / "gml"))


def test_what_a_checkpoint_says_of_itself(runs):
    content = load(runs / "student/checkpoints/last.ckpt")
    assert len(content["gml_teacher_sha256"]) == 64
    facts = json.loads((runs / "student/run.json").read_text())
    assert facts["method"] == "gml"
