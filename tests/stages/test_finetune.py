# SPDX-License-Identifier: MIT
"""Fine-tuning a run: what each mode trains, results, resume, baselines, clear errors."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from ltplugins.core.errors import UserError
from ltplugins.data.sources.records import DataRecord
from ltplugins.eval.results import Results
from ltplugins.runs.checkpoint import open_run
from ltplugins.runs.metrics import read_metrics
from ltplugins.runs.model import load_trained
from ltplugins.stages import finetune as stage
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.finetune import finetune
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.report import report
from ltplugins.zoo.export import export
from ltplugins.zoo.load import load_backbone
from tests.kit.runs import Interrupt, assert_same_run, interrupted, load
from tests.kit.tiny import tiny_config, write_arrays

VIT = {"name": "test_vit", "kwargs": {"img_size": 16, "patch_size": 4}}
SHORT = {"epochs": 2, "probe_epochs": 2, "batch_size": 8, "validation": 0.2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("first")


@pytest.fixture(scope="module")
def first(folder):
    """A finished run of SimCLR, one epoch, read by every test."""
    return pretrain(tiny_config(folder, "simclr", max_epochs=1, output_dir=str(folder / "cnn")))


@pytest.fixture(scope="module")
def vit(folder):
    """The same with a ViT."""
    cfg = tiny_config(folder, "simclr", max_epochs=1, output_dir=str(folder / "vit"))
    cfg.backbone = VIT
    return pretrain(cfg)


def config(run, out, **changes):
    """A few epochs in batches of 8; ``a__b=c`` sets ``a.b``."""
    words = [f"output_dir={out}"] + ([] if run is None else [f"run={run}"])
    cfg = compose_packaged("finetune", words)
    for key, value in {**SHORT, **changes}.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    return cfg


def state_of(path):
    return load(path / "checkpoints/last.ckpt")["state_dict"]


def changed(old, new):
    """Which parts of the backbone differ."""
    backbone = {k for k in new if k.startswith("backbone.")}
    return {k for k in backbone if not torch.equal(old[k], new[k])}


@pytest.mark.parametrize("mode", ["linear", "full", "lp_ft"])
def test_what_each_mode_trains(mode, first, tmp_path):
    path = finetune(config(first, tmp_path / "out", mode=mode))
    old, new = state_of(first), state_of(path)
    assert {k.split(".")[0] for k in new} == {"backbone", "classifier"}
    moved = changed(old, new)
    weights = {k for k in new if k.startswith("backbone.") and k.endswith("weight")}
    assert moved == set() if mode == "linear" else weights <= moved
    facts = json.loads((path / "run.json").read_text())
    assert facts["label"] == f"simclr+{mode}" and facts["stage_1"]["run"] == str(first)
    assert facts["finished"]
    epochs = 4 if mode == "lp_ft" else 2
    metrics = read_metrics(path / "metrics.csv")
    assert len(metrics["val_balanced_acc1"][1]) == epochs
    assert len(metrics["train_finetune_loss_epoch"][1]) == epochs


def test_the_probe_of_lp_ft_leaves_the_backbone_alone(first, tmp_path, monkeypatch):
    cfg = config(first, tmp_path / "out", mode="lp_ft")
    interrupted(cfg, 2, 0, monkeypatch, stage=finetune)
    old = state_of(first)
    assert changed(old, state_of(tmp_path / "out")) == set()
    assert changed(old, state_of(finetune(cfg)))


def test_results_say_what_they_are(first, tmp_path):
    path = finetune(config(first, tmp_path / "out", loss__name="logit_adjusted", mode="linear"))
    results = Results.read(path / "results.json")
    entry = results.protocols["classifier"]
    assert results.method == "simclr+linear" and results.epoch == 3 and results.seed == 0
    assert "logit_adjusted, tau = 1" in entry.description
    # 24, 12 and 6 images; a fifth of each is held out.
    assert entry.n_train == 34 and "34 training images; 8 more" in entry.description
    assert results.class_counts == [24, 12, 6] and results.sizes.test == 24
    for rule in ("tercile", "threshold"):
        assert np.sum(entry.confusion[rule]) == 24
        hits = np.diag(entry.confusion["tercile"]).sum() / 24
    assert hits == pytest.approx(entry.overall.mean)  # a class is a group here
    plain = entry.calibration.plain["tercile"]
    assert sum(row[0] for row in plain.bins["overall"]) == 24
    assert sum(row[0] for row in plain.bins["few"]) == 8
    assert plain.error["overall"] == pytest.approx(entry.ece.mean, abs=1e-5)
    assert plain.error["few"] == pytest.approx(entry.group_ece["tercile"]["few"].mean, abs=1e-5)
    assert entry.calibration.n == 8 and entry.calibration.temperature > 0


def test_the_numbers_are_those_of_the_checkpoint(first, tmp_path):
    from ltplugins.data.augment.plain import eval_transform
    from ltplugins.data.sources.build import build_source

    path = finetune(config(first, tmp_path / "out", mode="full", post_hoc_tau=1.0))
    run = open_run(path)
    test = build_source(run.cfg.data, "test")
    transform = eval_transform(test.record, 16)
    backbone = load_trained(run, test.record).backbone.eval()
    with torch.no_grad():
        images = torch.stack([transform(test.load(i)) for i in range(len(test))])
        feats = backbone(images).flatten(1)
    logits = feats @ run.state["classifier.weight"].T + run.state["classifier.bias"]
    logits -= torch.tensor([19, 10, 5]).div(34).log()  # the images that were trained on
    hits = (logits.argmax(dim=1).numpy() == test.targets).mean()
    found = Results.read(path / "results.json").protocols["classifier"]
    assert found.overall.mean == pytest.approx(hits)


def test_report_and_evaluate_take_it(first, tmp_path):
    paths = [
        finetune(config(first, tmp_path / mode, mode=mode, loss__name=loss))
        for mode, loss in (("linear", "cross_entropy"), ("full", "focal"))
    ]
    page = report(paths, tmp_path / "report").read_text()
    assert "simclr+linear" in page and "simclr+full" in page
    scored = Results.read(paths[1] / "results.json")
    words = [f"run={paths[1]}", "eval.knn.k=3", "eval.linear.shots=[4]"]
    results = evaluate(compose_packaged("evaluate", words))
    assert results.features["test"] == scored.features["test"]  # found, not made again
    assert set(results.protocols) == {"classifier", "knn_k3_T0.07", "linear_4shot"}
    assert Results.read(paths[1] / "results.json").protocols["classifier"].calibration is not None


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_it_leaves_for_other_programs(mode, vit, tmp_path):
    """What is loaded and exported gives the features that were scored."""
    if mode == "lora":
        pytest.importorskip("peft")
    path = finetune(config(vit, tmp_path / "out", mode=mode))
    backbone = load_backbone(path)
    assert not any("lora" in key for key in backbone.state_dict())
    (file,) = (path / "features").glob("*.safetensors")
    scored = load_file(file)["feats"]
    images = np.load(vit.parent / "test.npz")["images"]
    for found in (backbone, load_backbone(export(path, tmp_path / "entry", ["timm"]))):
        with torch.no_grad():
            feats = found(torch.stack([found.transform(image) for image in images]))
        torch.testing.assert_close(feats, scored, rtol=1e-4, atol=1e-5)


def test_a_fine_tuned_run_is_a_start_again(first, tmp_path):
    path = finetune(config(first, tmp_path / "a", mode="full"))
    again = finetune(config(path, tmp_path / "b", mode="linear"))
    assert changed(state_of(path), state_of(again)) == set()
    assert json.loads((again / "run.json").read_text())["label"] == "simclr+full+linear"


def test_again_is_nothing_and_other_settings_are_refused(first, tmp_path):
    cfg = config(first, tmp_path / "out", mode="linear")
    path = finetune(cfg)
    before = (path / "checkpoints/last.ckpt").stat().st_mtime_ns
    assert finetune(cfg) == path
    assert (path / "checkpoints/last.ckpt").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"finetune.loss.name: 'cross_entropy' there, 'focal' here"):
        finetune(config(first, path, mode="linear", loss__name="focal"))
    with pytest.raises(UserError, match="the run itself"):
        finetune(config(first, first))


BREAKS = {
    "lp_ft": {"layer_decay": 0.7, "mix": {"mixup": 0.5, "cutmix": 1.0}},
    "full": {"head": "cosine", "loss": "ldam", "freeze_bn": True},
    "crt": {"mode": "full", "head": "crt"},
    "early": {"mode": "full", "patience": 1, "epochs": 12, "lr": 1e-9},
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_killed_run_ends_as_the_unbroken_one(name, first, tmp_path, monkeypatch):
    changes = {"mode": name, **BREAKS[name]}
    whole = finetune(config(first, tmp_path / "whole", **changes))
    cfg = config(first, tmp_path / "broken", **changes)
    interrupted(cfg, 1, 1, monkeypatch, stage=finetune)
    assert "finished" not in json.loads((tmp_path / "broken/run.json").read_text())
    assert_same_run(whole, finetune(cfg))
    one, two = (Results.read(p / "results.json") for p in (whole, tmp_path / "broken"))
    assert one.protocols == two.protocols


@pytest.mark.parametrize("name", ["lp_ft", "early"])
def test_killed_while_it_is_scored(name, first, tmp_path, monkeypatch):
    changes = {"mode": name, **BREAKS[name]}
    whole = finetune(config(first, tmp_path / "whole", **changes))
    cfg = config(first, tmp_path / "broken", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "score", lambda *args: (_ for _ in ()).throw(Interrupt))
        with pytest.raises(Interrupt):
            finetune(cfg)
    assert_same_run(whole, finetune(cfg))
    one, two = (Results.read(p / "results.json") for p in (whole, tmp_path / "broken"))
    assert one.protocols == two.protocols
    facts = [json.loads((p / "run.json").read_text()) for p in (whole, tmp_path / "broken")]
    for key in ("stopped", "progress"):
        assert facts[0].get(key) == facts[1].get(key), key
    assert ("finished" in facts[0]) == ("finished" in facts[1])


def test_it_stops_early_with_the_best_weights(first, tmp_path):
    path = finetune(config(first, tmp_path / "out", **{"mode": "full", **BREAKS["early"]}))
    facts = json.loads((path / "run.json").read_text())
    assert facts["stopped"] == "EarlyEnd" and facts["progress"]["epochs"] == 2
    kept = load(path / "checkpoints/last.ckpt")["callbacks"]["EarlyEnd"]["weights"]
    assert all(torch.equal(value, state_of(path)[key]) for key, value in kept.items())


@pytest.mark.parametrize("head", ["cosine", "crt", "tau", "lws"])
def test_heads(head, first, tmp_path):
    path = finetune(config(first, tmp_path / head, mode="linear", head=head))
    plain = finetune(config(first, tmp_path / "plain", mode="linear"))
    old, new = state_of(plain), state_of(path)
    assert not torch.equal(old["classifier.weight"], new["classifier.weight"]) or head == "tau"
    assert head in ("cosine", "crt") or not new["classifier.bias"].any()
    entry = Results.read(path / "results.json").protocols["classifier"]
    assert f"head {head}" in entry.description and ("tau" in entry.settings) == (head == "tau")


def test_lora_trains_adapters_and_leaves_plain_layers(vit, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    changes = {"mode": "lora", "epochs": 3, "optimizer": "adamw", "lr": 0.01}
    whole = finetune(config(vit, tmp_path / "whole", **changes))
    old, new = state_of(vit), state_of(whole)
    moved = changed(old, new)
    assert moved and all("qkv.weight" in key for key in moved)
    assert {k for k in old if k.startswith("backbone.")} == set(new) - {
        "classifier.weight",
        "classifier.bias",
    }
    cfg = config(vit, tmp_path / "broken", **changes)
    interrupted(cfg, 1, 1, monkeypatch, stage=finetune)
    finetune(cfg)
    one, two = (load(p / "checkpoints/last.ckpt") for p in (whole, tmp_path / "broken"))
    for part in ("state_dict", "adapters"):
        assert one[part].keys() == two[part].keys()
        assert all(torch.equal(value, two[part][key]) for key, value in one[part].items())
    again = finetune(config(whole, tmp_path / "again", mode="linear"))  # a backbone as any other
    assert changed(new, state_of(again)) == set()


def test_from_scratch(first, tmp_path):
    path = finetune(config(first, tmp_path / "out", mode="full", weights="random"))
    facts = json.loads((path / "run.json").read_text())
    assert facts["label"] == "random+full" and "stage_1" not in facts
    other = finetune(config(first, tmp_path / "b", mode="full", weights="random", seed=1))
    assert changed(state_of(path), state_of(other))


def test_a_baseline_of_a_local_file(first, tmp_path):
    """Another network on the run's data, its weights in a file."""
    import timm

    torch.manual_seed(3)
    net = timm.create_model("test_vit", num_classes=0, **VIT["kwargs"])
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    given = {**VIT, "pretrained": str(tmp_path / "net.safetensors")}
    path = finetune(config(first, tmp_path / "out", mode="linear", backbone=given))
    state = state_of(path)
    assert all(torch.equal(v, state[f"backbone.{k}"]) for k, v in net.state_dict().items())
    assert json.loads((path / "run.json").read_text())["label"] == "test_vit+linear"


@pytest.mark.parametrize("name", ["{}", "local-dir:{}"])
def test_a_baseline_of_an_exported_folder(name, first, tmp_path):
    entry = export(first, tmp_path / "entry", ["timm"])
    given = {"name": name.format(entry)}
    path = finetune(config(first, tmp_path / "out", mode="linear", backbone=given))
    assert not changed(state_of(first), state_of(path))
    assert json.loads((path / "run.json").read_text())["label"] == "simclr+linear"
    again = finetune(config(path, tmp_path / "again", mode="full"))
    assert changed(state_of(path), state_of(again))


def test_without_a_run(folder, first, tmp_path):
    data = OmegaConf.load(first / "config.yaml").data
    given = {k: data[k] for k in ("dataset", "format", "train_path", "val_path", "engine")}
    changes = {"data": {**given, "num_workers": 0}, "augmentations": [{"crop_size": 16}]}
    changes["augmentations"][0]["num_crops"] = 2
    cfg = config(None, tmp_path / "out", mode="full", backbone={"name": "test_resnet"}, **changes)
    cfg.accelerator = "cpu"
    path = finetune(cfg)
    results = Results.read(path / "results.json")
    assert results.method == "random+full" and results.dataset == "custom"
    load_trained(open_run(path), DataRecord("any", 3, (0.5,) * 3, (0.5,) * 3, 16, False))


def test_other_images_than_the_runs(first, tmp_path):
    write_arrays(tmp_path / "train.npz", (30, 20, 10, 10), seed=7)
    write_arrays(tmp_path / "test.npz", (5, 5, 5, 5), seed=8)
    data = {
        "dataset": "custom",
        "format": "arrays",
        "train_path": str(tmp_path / "train.npz"),
        "val_path": str(tmp_path / "test.npz"),
        "engine": "batched",
        "num_workers": 0,
    }
    path = finetune(config(first, tmp_path / "out", mode="lp_ft", data=data))
    results = Results.read(path / "results.json")
    assert results.class_counts == [30, 20, 10, 10]
    assert results.run == f"{tmp_path.name}-lp_ft"  # of the images, not of the first run


def test_data_may_have_been_moved(tmp_path):
    cfg = tiny_config(tmp_path, "simclr", max_epochs=1, output_dir=str(tmp_path / "run"))
    run = pretrain(cfg)
    (tmp_path / "moved").mkdir()
    for name in ("train.npz", "test.npz"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    with pytest.raises(UserError, match="no such file"):
        finetune(config(run, tmp_path / "out"))
    places = {
        "data__train_path": str(tmp_path / "moved/train.npz"),
        "data__val_path": str(tmp_path / "moved/test.npz"),
    }
    finetune(config(run, tmp_path / "out", mode="linear", **places))


BAD = [
    ({"mode": "lora"}, r"^mode: expected linear, full or lp_ft for test_resnet, got lora"),
    ({"layer_decay": 0.7, "mode": "linear"}, r"^layer_decay: expected 1 with mode=linear"),
    (
        {"post_hoc_tau": 1.0, "loss": "logit_adjusted"},
        r"^post_hoc_tau: expected 0 with loss=logit_adjusted, which balances .* got 1.0",
    ),
    ({"post_hoc_tau": 1.0, "head": "crt"}, r"^post_hoc_tau: expected 0 with head=crt"),
    ({"post_hoc_tau": 1.0, "sampler": "class_aware"}, r"^post_hoc_tau: expected 0 with sampler="),
    ({"loss": "logit_adjusted", "sampler": "class_aware"}, r"^sampler: expected shuffle"),
    ({"head": "tau", "sampler": "class_aware"}, r"^sampler: expected shuffle with head=tau"),
    ({"loss": "ldam"}, r"^head: expected cosine with loss=ldam"),
    ({"head": "tau", "loss": "logit_adjusted"}, r"^head: expected linear, cosine or crt"),
    ({"mix": {"mixup": 1.0}, "loss": "focal"}, r"^mix: expected none with loss=focal"),
    ({"mix": {"mixup": 1.0}, "batch_size": 7}, r"^batch_size: expected an even number"),
    ({"loss": "focall"}, r"loss.name: expected one of .* Did you mean 'focal'"),
    ({"min_lr": 1.0}, r"^min_lr: expected a number of at most lr \(0.05\), got 1.0"),
    ({"batch_size": 64}, r"^batch_size: fewer images than the batch: there are 34 to train on"),
    ({"optimizer": "sdg"}, r"unknown optimizer 'sdg'. Did you mean 'sgd'"),
    ({"backbone": {"name": "resnet19"}}, r"unknown backbone 'resnet19'"),
    ({"backbone": {"name": "local-dir:nowhere"}}, r"nowhere"),
    (
        {"backbone": {"name": "vit_tiny", "kwargs": {"img_size": 32, "patch_size": 4}}},
        r"^backbone.name: vit_tiny does not take crops of 16 pixels",
    ),
]


@pytest.mark.parametrize(("changes", "text"), BAD)
def test_bad_input_is_named(changes, text, first, tmp_path):
    with pytest.raises(UserError, match=text):
        finetune(config(first, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_backbone_of_one_layer_is_refused(first, tmp_path, monkeypatch):
    import timm

    monkeypatch.delattr(timm.models.byobnet.ByobNet, "group_matcher")
    with pytest.raises(UserError, match="layer_decay: expected 1 for test_byobnet"):
        changes = {"backbone": {"name": "test_byobnet"}, "layer_decay": 0.7}
        finetune(config(first, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_no_run_is_refused(first, tmp_path):
    with pytest.raises(
        UserError, match=r"run is missing: .* set data.dataset, augmentations, back"
    ):
        finetune(config(None, tmp_path / "out"))
    with pytest.raises(UserError, match="does not exist"):
        finetune(config(tmp_path / "nothing", tmp_path / "out"))


def test_a_run_whose_checkpoint_is_gone_is_refused(tmp_path):
    run = pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))
    (run / "checkpoints/last.ckpt").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        finetune(config(run, tmp_path / "out"))


def test_one_class_is_refused(first, tmp_path):
    write_arrays(tmp_path / "one.npz", (30,))
    data = {"dataset": "custom", "format": "arrays", "train_path": str(tmp_path / "one.npz")}
    with pytest.raises(UserError, match="data: expected images of two classes or more, got one"):
        finetune(config(first, tmp_path / "out", data=data))


def test_a_run_that_is_not_finished_is_refused(tmp_path, monkeypatch):
    interrupted(tiny_config(tmp_path, "simclr", max_epochs=2), 1, 0, monkeypatch)
    with pytest.raises(UserError, match="is not finished: it has 1 epochs"):
        finetune(config(tmp_path / "run", tmp_path / "out"))
