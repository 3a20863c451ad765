# SPDX-License-Identifier: MIT
"""Bad configs get one clear message before any work: expected, got, way out."""

from dataclasses import dataclass, field

import pytest
from omegaconf import OmegaConf

from ltplugins.config.identity import differences, identity
from ltplugins.config.resolve import resolve
from ltplugins.config.trainer import trainer_arguments
from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.host.build import scale_learning_rates


@dataclass
class Inner:
    depth: int = 1


@dataclass
class Outer:
    name: str
    rate: float = 0.1
    size: int | None = None
    on: bool = False
    inner: Inner = field(default_factory=Inner)
    items: list[int] = field(default_factory=list)


def test_parse_fills_defaults_and_converts():
    got = parse(Outer, {"name": "x", "rate": "1e-4", "inner": {"depth": 3}, "items": [1, 2]}, "o")
    assert got == Outer("x", 1e-4, None, False, Inner(3), [1, 2])
    assert parse(Outer, {"name": "x", "rate": 1}, "o").rate == 1.0


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({"name": "x", "rtae": 1}, r"unknown key 'o.rtae'. Did you mean 'rate'\?"),
        ({"name": "x", "rate": "fast"}, "o.rate: expected a number, got 'fast'"),
        ({"name": "x", "size": 1.5}, "o.size: expected"),
        ({"name": "x", "on": 1}, "o.on: expected true or false, got 1"),
        ({"name": "x", "size": True}, "o.size: expected"),
        ({"name": "x", "inner": {"dpth": 1}}, r"unknown key 'o.inner.dpth'. Did you mean 'depth'"),
        ({"name": "x", "items": [1, "a"]}, r"o.items\[1\]: expected a whole number"),
        ({}, "o.name is missing"),
        ("text", "o: expected a block of keys"),
    ],
)
def test_parse_names_what_is_wrong(section, text):
    with pytest.raises(UserError, match=text):
        parse(Outer, section, "o")


def config(**changes):
    base = {
        "method": "simclr",
        "backbone": {"name": "resnet18"},
        "method_kwargs": {"proj_hidden_dim": 8, "proj_output_dim": 4, "temperature": 0.2},
        "data": {"dataset": "fashion_pack"},
        "optimizer": {"name": "sgd", "batch_size": 512, "lr": 0.4, "weight_decay": "1e-4"},
        "augmentations": [{"crop_size": 32, "num_crops": 2}, {"crop_size": 16, "num_crops": 3}],
        "max_epochs": 3,
    }
    cfg = OmegaConf.create(base)
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    return cfg


def test_resolve_fills_in_and_leaves_the_input_alone():
    given = config()
    cfg = resolve(given)
    assert "seed" not in given
    assert cfg.seed == 5
    assert (cfg.host.data.num_large_crops, cfg.host.data.num_small_crops) == (2, 3)
    assert cfg.output_dir == "runs/simclr/fashion"
    assert cfg.optimizer.weight_decay == pytest.approx(1e-4)
    assert cfg.optimizer.kwargs == cfg.host.optimizer.kwargs == {"momentum": 0.9}
    assert resolve(cfg.host) == cfg


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"optimzer": {}}, r"unknown key 'optimzer'. Did you mean 'optimizer'\?"),
        ({"optimizer__lr": "high"}, "optimizer.lr: expected a number"),
        ({"optimizer__batch_sise": 3}, r"optimizer.batch_sise'. Did you mean 'batch_size'"),
        ({"data__engin": "batched"}, r"unknown key 'data.engin'. Did you mean 'engine'"),
        ({"max_epochs": "ten"}, "^max_epochs: expected a whole number of 1 or more, got 'ten'"),
        ({"max_epochs": 0}, "^max_epochs: expected a whole number of 1 or more, got 0"),
        ({"rank_timeout": -5}, "^rank_timeout: expected a whole number of 1 or more, got -5"),
        ({"strategy": "ddpp"}, "unknown strategy 'ddpp'. Did you mean 'ddp'"),
        ({"strategy": "fsdp"}, "unknown strategy 'fsdp'.*Valid: auto, ddp, ddp_find"),
        ({"callbacks": ["x"]}, "callbacks: expected blocks with a _target_ such as .*got 'x'"),
        ({"callbacks": [{"monitor": "x"}]}, "callbacks: expected a name or a block with a _target"),
        ({"logger": False}, "logger: expected names or blocks, got False. Leave it out: metrics"),
        ({"enable_checkpointing": True}, "Leave it out: checkpoint.enabled says"),
        ({"use_distributed_sampler": True}, "Leave it out: the samplers of data.sampler"),
        ({"augmentations": []}, "augmentations: expected a list of blocks"),
        ({"backbone__name": 18}, "backbone.name: expected text, got 18"),
    ],
)
def test_resolve_names_what_is_wrong(changes, text):
    with pytest.raises(UserError, match=text):
        resolve(config(**changes))


def test_what_has_no_effect_is_said():
    assert resolve(config()).remarks == ()
    asked = {"auto_umap": {"enabled": True}, "auto_resume": {"max_hours": 3}, "wandb_cfg": {"a": 1}}
    said = [line.split(" has no effect")[0] for line in resolve(config(**asked)).remarks]
    assert said == ["wandb_cfg", "auto_umap.enabled", "auto_resume.max_hours"]


def test_loggers_and_callbacks_in_every_form():
    block = {"_target_": "a.B", "patience": 3}
    for given in (block, [block], {"early": block, "off": None}):
        assert resolve(config(callbacks=given)).callbacks == (block,)
        assert resolve(config(logger=given)).loggers == (block,)
    cfg = resolve(config(logger=["csv", "tensorboard"]))
    assert cfg.loggers == ("tensorboard",)
    assert not {"logger", "callbacks"} & set(cfg.trainer)
    assert resolve(config(logger=True)).loggers == resolve(config()).loggers == ()


def test_the_block_of_lightning_hydra_goes_before_the_top():
    block = {"_target_": "lightning.pytorch.Trainer", "max_epochs": 7, "devices": 2}
    cfg = resolve(config(trainer=block))
    assert (cfg.max_epochs, cfg.trainer["devices"], cfg.host.max_epochs) == (7, 2, 7)
    assert "trainer" not in cfg.host
    with pytest.raises(UserError, match=r"^max_epochs: expected a whole number of 1 or more"):
        resolve(config(trainer={"max_epochs": 0}))


def test_solo_learns_dali_format_is_an_engine():
    cfg = resolve(config(data__dataset="custom", data__format="dali", data__train_path="x"))
    for data in (cfg.data, cfg.host.data):
        assert (data.format, data.engine) == ("image_folder", "dali")
    assert resolve(cfg.host) == cfg
    with pytest.raises(UserError, match=r"asks for the engine dali, and data.engine is workers"):
        resolve(config(data__format="dali", data__engine="workers"))
    with pytest.raises(UserError, match=r"dali.device: expected one of gpu, cpu; got 'tpu'"):
        resolve(config(dali={"device": "tpu"}))


def test_missing_sections_are_listed_with_a_way_out():
    with pytest.raises(UserError, match=r"has no max_epochs, optimizer. Start from one"):
        cfg = config()
        del cfg["max_epochs"], cfg["optimizer"]
        resolve(cfg)


def test_learning_rates_follow_the_global_batch():
    cfg = resolve(config())
    scaled = scale_learning_rates(cfg.host, world_size=2)
    assert scaled.optimizer.lr == pytest.approx(0.4 * 512 * 2 / 256)
    assert scaled.optimizer.classifier_lr == pytest.approx(0.1 * 512 * 2 / 256)
    assert cfg.host.optimizer.lr == 0.4


def test_a_gpu_file_runs_on_a_cpu_and_says_so(caplog, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    cfg = resolve(config(accelerator="gpu", devices=[0], precision="16-mixed", strategy="ddp"))
    kwargs = trainer_arguments(cfg)
    assert kwargs["accelerator"] == "cpu"
    assert kwargs["devices"] == 1
    assert kwargs["precision"] == "32-true"
    assert kwargs["strategy"] == "auto"
    assert "none is here: using the CPU" in caplog.text
    assert "precision=16-mixed needs a GPU" in caplog.text


def test_identity_ignores_only_what_cannot_change_the_numbers():
    cfg = resolve(config())
    same = resolve(config(output_dir="elsewhere", data__num_workers=7))
    assert differences(identity(cfg, 1), identity(same, 1)) == []
    for engine, rows in (("batched", []), ("dali", ["dali.device: 'cpu' there, 'gpu' here"])):
        pair = [
            resolve(config(data__engine=engine, dali={"device": device}))
            for device in ("cpu", "gpu")
        ]
        assert differences(*(identity(one, 1) for one in pair)) == rows
    other = resolve(
        config(method_kwargs__temperature=0.5, data__imbalance={"kind": "exp", "factor": 10.0})
    )
    rows = differences(identity(cfg, 1), identity(other, 2))
    assert rows == [
        "data.imbalance: None there, {'kind': 'exp', 'factor': 10.0} here",
        "method_kwargs.temperature: 0.2 there, 0.5 here",
        "world_size: 1 there, 2 here",
    ]
