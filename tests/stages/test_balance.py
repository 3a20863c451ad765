# SPDX-License-Identifier: MIT
"""Balancing a run's classifier: a new folder, the first one untouched, resume, clear errors."""

import hashlib
import json
import sys

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.losses.iccl import balance_loss
from ltplugins.runs.checkpoint import open_run
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.balance import balance
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.report import report
from ltplugins.training.balancer import BalanceConfig, ClassifierBalancer, head_parameters
from tests.kit import forked
from tests.kit.runs import assert_same_run, interrupted, load
from tests.kit.tiny import tiny_config

ICCL = {"proj_hidden_dim": 16, "proj_output_dim": 8}


def first_config(folder, **changes):
    cfg = tiny_config(folder, "simclr", **changes)
    cfg.method, cfg.method_kwargs = "iccl", ICCL
    cfg.data.sampler = {"name": "two_branch", "gamma": 0.5}
    return cfg


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run of ICCL, two epochs; it is read by every test and changed by none."""
    folder = tmp_path_factory.mktemp("first")
    path = pretrain(first_config(folder, max_epochs=2, output_dir=str(folder / "iccl")))
    before = fingerprint(path)
    yield path
    assert fingerprint(path) == before


def fingerprint(folder):
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def balance_config(run, out, **changes):
    """Two epochs in batches of 8."""
    changes = {"epochs": 2, "batch_size": 8, "lr": 0.3, **changes}
    cfg = compose_packaged("balance", [f"run={run}", f"output_dir={out}"])
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    return cfg


def state_of(path):
    return load(path / "checkpoints/last.ckpt")["state_dict"]


def test_only_the_classifier_changes(first, tmp_path):
    path = balance(balance_config(first, tmp_path / "out"))
    old, new = state_of(first), state_of(path)
    assert old.keys() == new.keys()
    changed = {key for key, value in old.items() if not torch.equal(value, new[key])}
    assert changed == {"classifier.weight", "classifier.bias"}
    facts = json.loads((path / "run.json").read_text())
    assert facts["stage_1"]["run"] == str(first)
    for rule in ("tercile", "threshold"):
        assert set(facts["classifier"][rule]) == {"before", "after"}
        assert set(facts["classifier"][rule]["after"]) == {"overall", "many", "medium", "few"}
    metrics = read_metrics(path / "metrics.csv")
    assert {"train_balance_loss_epoch", "train_acc1_epoch"} <= set(metrics)


def test_scores_are_those_of_the_classifier_on_the_test_images(first, tmp_path):
    from ltplugins.data.augment.plain import eval_transform
    from ltplugins.data.sources.build import build_source
    from ltplugins.runs.model import load_trained

    path = balance(balance_config(first, tmp_path / "out"))
    scores = json.loads((path / "run.json").read_text())["classifier"]["tercile"]
    for when, folder in (("before", first), ("after", path)):
        run = open_run(folder)
        test = build_source(run.cfg.data, "test")
        transform = eval_transform(test.record, 16)
        model = load_trained(run, test.record).eval()
        with torch.no_grad():
            images = torch.stack([transform(test.load(i)) for i in range(len(test))])
            preds = model(images)["logits"].argmax(dim=1)
        hits = preds == torch.from_numpy(test.targets)
        assert scores[when]["overall"] == pytest.approx(hits.float().mean().item())
        few = hits[torch.from_numpy(test.targets) == 2].float().mean().item()
        assert scores[when]["few"] == pytest.approx(few)


def test_evaluate_and_report_take_it(first, tmp_path):
    path = balance(balance_config(first, tmp_path / "out"))
    copy = tmp_path / "first.ckpt"
    copy.write_bytes((first / "checkpoints/last.ckpt").read_bytes())
    results = []
    for run in (path, copy):
        cfg = compose_packaged("evaluate", [f"run={run}", "eval.knn.k=3", "eval.linear.shots=[4]"])
        results.append(evaluate(cfg))
    after, before = results
    assert (after.method, before.method) == ("iccl+balance", "iccl")
    assert (after.epoch, before.epoch) == (4, 2)
    assert after.seed == before.seed
    assert after.split == before.split
    # The backbone is the same, so are all numbers that come from its features.
    own = [results.protocols.pop("classifier") for results in (after, before)]
    assert own[0] != own[1]
    assert after.protocols == before.protocols  # of the features, which have not changed
    assert "iccl+balance" in report([path], tmp_path / "report").read_text()


def test_data_may_have_been_moved(tmp_path):
    cfg = first_config(tmp_path, max_epochs=1, output_dir=str(tmp_path / "iccl"))
    run = pretrain(cfg)
    (tmp_path / "moved").mkdir()
    for name in ("train.npz", "test.npz"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    with pytest.raises(UserError, match="no such file"):
        balance(balance_config(run, tmp_path / "out", epochs=1))
    places = {
        "data.train_path": str(tmp_path / "moved/train.npz"),
        "data.val_path": str(tmp_path / "moved/test.npz"),
    }
    path = balance(balance_config(run, tmp_path / "out", epochs=1, **places))
    assert "classifier" in json.loads((path / "run.json").read_text())
    assert open_run(path).cfg.data.train_path == places["data.train_path"]


def test_again_is_nothing_and_other_settings_are_refused(first, tmp_path):
    cfg = balance_config(first, tmp_path / "out")
    path = balance(cfg)
    before = fingerprint(path)
    assert balance(cfg) == path
    assert fingerprint(path) == before
    with pytest.raises(UserError, match=r"balance.lr: 0.3 there, 2.0 here"):
        balance(balance_config(first, path, lr=2.0))
    with pytest.raises(UserError, match="the run itself"):
        balance(balance_config(first, first))
    with pytest.raises(UserError, match="holds another config's run"):
        pretrain(first_config(first.parent, max_epochs=2, output_dir=str(path)))


def test_seeded(first, tmp_path):
    same = [balance(balance_config(first, tmp_path / name, init="fresh")) for name in "ab"]
    other = balance(balance_config(first, tmp_path / "c", init="fresh", seed=1))
    weights = [state_of(p)["classifier.weight"] for p in (*same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("changes", [{}, {"backbone_lr": 0.1, "distill_weight": 0.5}])
def test_a_resumed_stage_equals_the_unbroken_one(changes, first, tmp_path, monkeypatch):
    whole = balance(balance_config(first, tmp_path / "whole", epochs=3, **changes))
    cfg = balance_config(first, tmp_path / "broken", epochs=3, **changes)
    interrupted(cfg, 1, 2, monkeypatch, stage=balance)
    assert "finished" not in json.loads((tmp_path / "broken/run.json").read_text())
    assert_same_run(whole, balance(cfg))


def test_a_low_rate_trains_the_backbone_too(first, tmp_path):
    path = balance(balance_config(first, tmp_path / "out", backbone_lr=0.1))
    old, new = state_of(first), state_of(path)
    changed = {k.split(".")[0] for k, v in old.items() if not torch.equal(v, new[k])}
    assert changed == {"classifier", "backbone"}


class Small(nn.Module):
    """A method with a head of two layers, one of which something else reads as well."""

    features_dim = 6

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6))
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)
        self.projector = nn.Linear(6, 4)
        self.double()

    def class_logits(self, feats):
        return self.second(self.first(feats).relu())


def balancer(**changes):
    options = BalanceConfig(run="", **changes)
    torch.manual_seed(1)
    model = ClassifierBalancer(Small(), options, 1.0)
    model.log_dict = lambda *args, **kwargs: None
    model.on_train_epoch_start()
    return model


def images(n=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, 2, 2, generator=g, dtype=torch.float64)
    return [torch.arange(n), [x], torch.arange(n) % 3]


def test_the_head_is_what_class_logits_reads():
    method = Small()
    method.projector.requires_grad_(False)
    method.second.eval()
    found = {id(p) for p in head_parameters(method)}
    assert found == {id(p) for m in (method.first, method.second) for p in m.parameters()}
    assert not method.projector.weight.requires_grad  # left as they were
    assert method.first.training and not method.second.training
    assert all(p.grad is None for p in method.parameters())


def test_what_gets_a_gradient():
    frozen, low = balancer(), balancer(backbone_lr=0.1)
    for model, trained in ((frozen, {"first", "second"}), (low, {"first", "second", "backbone"})):
        statistics = model.method.backbone[2].running_mean.clone()
        model.training_step(images(), 0).backward()
        grads = {k.split(".")[0] for k, p in model.method.named_parameters() if p.grad is not None}
        assert grads == trained
        moved = not torch.equal(model.method.backbone[2].running_mean, statistics)
        assert moved == (model is low)
    assert set(frozen.state_dict()) == set(Small().state_dict())


@pytest.mark.parametrize("backbone_lr", [0.0, 0.1])
def test_it_learns(backbone_lr):
    model = balancer(lr=0.3, backbone_lr=backbone_lr)
    model.trainer = type("Trainer", (), {"estimated_stepping_batches": 40})()
    (optimizer,), (schedule,) = model.configure_optimizers()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == ([0.3, 0.1] if backbone_lr else [0.3])
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = model.training_step(images(), 0)
        loss.backward()
        optimizer.step()
        schedule["scheduler"].step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


@pytest.mark.parametrize("backbone_lr", [0.0, 0.1])
def test_the_teacher_is_the_first_stage(backbone_lr):
    model = balancer(distill_weight=0.25, distill_temperature=3.0, backbone_lr=backbone_lr)
    start = Small().eval()
    batch = images()
    with torch.no_grad():  # the student has moved on; the teacher has not
        for p in model.method.first.parameters():
            p.add_(0.5)
        if backbone_lr:
            model.method.backbone[1].weight.add_(0.5)
    teacher = start.class_logits(start.backbone(batch[1][0]))
    student = model.method.class_logits(model.method.backbone(batch[1][0]))
    expected = balance_loss(student, batch[2], teacher, weight=0.25, temperature=3.0)
    loss = model.training_step(batch, 0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is None for p in model.teacher.parameters())


def test_where_the_classifier_starts():
    start = Small()
    kept, fresh = balancer().method, balancer(init="fresh").method
    assert torch.equal(kept.second.weight, start.second.weight)
    assert not torch.equal(fresh.second.weight, start.second.weight)
    assert torch.equal(fresh.projector.weight, start.projector.weight)
    assert torch.equal(fresh.backbone[1].weight, start.backbone[1].weight)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"distil_weight": 0.1}, r"unknown key 'distil_weight'. Did you mean 'distill_"),
        ({"distill_weight": 1.0}, "^distill_weight: expected a number of 0 or more and below 1"),
        ({"epochs": 0}, "^epochs: expected a whole number of 1 or more, got 0"),
        ({"lr": 0.0}, "^lr: expected a number above 0"),
        ({"gamma": -1.0}, "^gamma: expected a number of 0 or more, got -1.0"),
        ({"init": "random"}, "init: expected one of stage_1, fresh"),
        ({"batch_size": 64}, r"^batch_size: fewer images than the batch: .* 42 images .* to 42 or"),
    ],
)
def test_bad_input_is_named(changes, text, first, tmp_path):
    with pytest.raises(UserError, match=text):
        balance(balance_config(first, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nothing holds no run: expected run.json"):
        balance(balance_config(tmp_path / "nothing", tmp_path / "out"))
    with pytest.raises(UserError, match="run is missing: ltplugins balance RUN"):
        balance(compose_packaged("balance", []))


def test_a_run_that_is_not_finished_is_refused(tmp_path, monkeypatch):
    cfg = first_config(tmp_path, max_epochs=2)
    interrupted(cfg, 1, 0, monkeypatch)
    with pytest.raises(UserError, match="is not finished: it has 1 epochs"):
        balance(balance_config(tmp_path / "run", tmp_path / "out"))


def test_a_method_without_a_classifier_is_refused(tmp_path):
    path = pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))
    with pytest.raises(UserError, match=r"learns no classifier .* Methods that learn one: .*iccl"):
        balance(balance_config(path, tmp_path / "out"))


def test_command_line(first, tmp_path):
    link = tmp_path / "a=b"  # a path that Hydra's grammar would stop at
    link.symlink_to(first)
    command = [sys.executable, "-m", "ltplugins.cli", "balance", str(link)]
    command += ["output_dir=out", "epochs=1", "batch_size=8"]
    result = forked.run(command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "classifier after" in result.stdout
    assert "Warning" not in result.stderr
    assert (tmp_path / "out/checkpoints/last.ckpt").exists()
