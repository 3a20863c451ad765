# SPDX-License-Identifier: MIT
"""Every number of every section and method has a range, and a value outside is refused by one line.

The walk goes through the sections of a config, the options of every wrapper and method, and the
keys of the stages; a number without a range fails it unless ``UNBOUNDED`` says why.
"""

import copy
import inspect
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import ltplugins
from ltplugins.cli import main
from ltplugins.config.data import DataPaths
from ltplugins.config.resolve import SECTIONS, resolve
from ltplugins.config.sections import RunKeys, TrainerKeys
from ltplugins.core.errors import UserError
from ltplugins.core.ranges import AtLeast, Length, Within
from ltplugins.data.augment.schema import AugmentationBlock
from ltplugins.data.schema import DataConfig
from ltplugins.downstream.options import FinetuneConfig
from ltplugins.eval.options import EvalConfig
from ltplugins.host.builtin import METHOD_KWARGS
from ltplugins.methods.registry import METHODS, WRAPPERS, load_mixin, split_name
from ltplugins.stages.blocks import config_blocks
from ltplugins.training.balancer import BalanceConfig
from tests.kit.fields import Number, numbers
from tests.kit.tiny import KWARGS

# Key of a number that may be any, and why. There is none.
UNBOUNDED: dict[str, str] = {}
# Arguments of Lightning's Trainer whose numbers are names (16, 32) or parts of a text (hours), or
# that are refused whatever they hold.
NOT_NUMBERS = {"precision", "max_time", "limit_test_batches", "limit_predict_batches"}

GOOD: dict[str, Any] = {
    "method": "simclr",
    "method_kwargs": KWARGS["simclr"],
    "backbone": {"name": "resnet18"},
    "data": {
        "dataset": "custom",
        "format": "arrays",
        "train_path": "nowhere.npz",
        "sampler": {"name": "class_aware"},
        "imbalance": {"kind": "exp"},
        "ood": {"dataset": "emoji_pack"},
    },
    "optimizer": {"name": "sgd", "batch_size": 8, "lr": 0.1},
    "scheduler": {"name": "warmup_cosine"},
    "augmentations": [{"crop_size": 16, "num_crops": 2}],
    "max_epochs": 3,
}
PLACES: dict[str, type] = {
    **SECTIONS,
    "augmentations.0": AugmentationBlock,
    "eval": EvalConfig,
}


def with_value(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of a plain config with the value at a dotted key."""
    changed = copy.deepcopy(config)
    *sections, last = key.split(".")
    place: Any = changed
    for name in sections:
        if isinstance(place, list):
            place = place[int(name)]
        else:
            place[name] = place.get(name) or {}
            place = place[name]
    place[last] = value
    return changed


def config_of(method: str) -> dict[str, Any]:
    """A good config of any method: the options have defaults, the bases' sizes are the kit's."""
    wrappers, base = split_name(method)
    kwargs = {**KWARGS.get(base, {}), **{name: {} for name in wrappers}}
    return {**GOOD, "method": method, "method_kwargs": kwargs}


def assert_one_line(error: UserError, said: str) -> None:
    text = str(error)
    assert text.startswith(f"{said}: expected "), text
    assert ", got " in text
    assert " Set it to " in text
    assert "\n" not in text


def assert_refused(number: Number, config: dict[str, Any], blocks: Any = config_blocks) -> int:
    """Every value outside is refused by one line that names the key; how many were tried."""
    if number.key in UNBOUNDED:
        return 0
    resolve(config, blocks)  # it is the value that is refused, nothing else
    said = number.said.replace("augmentations.0", "augmentations[0]")
    for value in number.outside():
        with pytest.raises(UserError) as error:
            resolve(with_value(config, number.key, value), blocks)
        assert_one_line(error.value, said)
    return 1


def own_blocks() -> dict[str, tuple[str, type]]:
    """The options of each wrapper and method of ours and of each base of the stand-in, by a name.

    A wrapper is walked over SimCLR; which names hand which options in is a test of its own.
    """
    blocks = {name: (f"{name}_simclr", load_mixin(name).wrapper_config) for name in WRAPPERS}
    blocks |= {name: (name, load_mixin(name).method_config) for name in METHODS}
    return blocks | {name: (name, cls) for name, cls in METHOD_KWARGS.items()}


def test_how_many_numbers_there_are(record_property):
    places = [RunKeys, TrainerKeys, *PLACES.values(), BalanceConfig]
    places += [cls for _, cls in own_blocks().values()]
    found = [number for cls in places for number in numbers(cls)]
    record_property("numbers", len(found))
    assert len(found) >= 180  # 190 today
    assert [n.key for n in found if n.range is None and n.key not in UNBOUNDED] == []


def test_the_walk_finds_numbers_without_a_range_wherever_they_stand():
    @dataclass
    class Inner:
        depth: int = 1

    @dataclass
    class Outer:
        name: str
        rate: float | None = None
        sizes: list[int] = field(default_factory=list)
        pair: Annotated[list[Annotated[float, Within(0, 1)]], Length(2)] | None = None
        inner: Inner | None = None
        on: bool = False
        count: Annotated[int, AtLeast(2)] | str = 2

    found = {n.key: n for n in numbers(Outer)}
    assert list(found) == ["rate", "sizes", "pair", "inner.depth", "count"]
    assert [key for key, n in found.items() if n.range is None] == ["rate", "sizes", "inner.depth"]
    assert found["count"].outside() == [1, -5]
    assert found["pair"].outside()[:2] == [[-0.001] * 2, [-7.0] * 2]


@pytest.mark.parametrize("place", ["", *PLACES])
def test_sections(place):
    classes = [PLACES[place]] if place else [RunKeys, TrainerKeys]
    for number in (n for cls in classes for n in numbers(cls, place)):
        assert_refused(number, GOOD)


@pytest.mark.parametrize("name", sorted(own_blocks()))
def test_methods(name):
    method, cls = own_blocks()[name]
    place = f"method_kwargs.{name}" if name in WRAPPERS else "method_kwargs"
    # Under solo-learn its bases' options are its own business; here they are the stand-in's.
    blocks = {place: cls}
    tried = [
        assert_refused(n, config_of(method), lambda method: blocks if name in METHOD_KWARGS else
                       config_blocks(method))
        for n in numbers(cls, place)
    ]  # fmt: skip
    assert sum(tried) > 0


def test_every_registered_name_hands_its_options_in():
    from ltplugins.host import HOST

    names = ltplugins.register()
    for name in [*names, *(METHOD_KWARGS if HOST.name == "builtin" else ())]:
        wrappers, base = split_name(name)
        expected = {f"method_kwargs.{w}": load_mixin(w).wrapper_config for w in wrappers}
        if base in METHODS:
            expected["method_kwargs"] = load_mixin(base).method_config
        elif HOST.name == "builtin":
            expected["method_kwargs"] = METHOD_KWARGS[base]
        assert config_blocks(name) == {"eval": EvalConfig, **expected}
    assert {"gh_colt_simclr", "bcl_sdclr_barlow_twins", "gml"} <= set(names)


def test_blocks_within_blocks_are_checked_each_by_its_own_type():
    config = config_of("gh_colt_simclr")
    resolve(config, config_blocks)
    for key in ("method_kwargs.gh.epsilon", "method_kwargs.colt.temperature"):
        with pytest.raises(UserError, match=rf"^{key}: expected a number above 0, got 0"):
            resolve(with_value(config, key, 0), config_blocks)
    with pytest.raises(UserError, match=r"unknown key 'method_kwargs.gh.epsilonn'. Did you mean"):
        resolve(with_value(config, "method_kwargs.gh.epsilonn", 1), config_blocks)


def test_every_number_of_lightnings_trainer_is_known():
    from lightning.pytorch import Trainer

    known = {n.key for cls in (RunKeys, TrainerKeys) for n in numbers(cls)} | NOT_NUMBERS
    for name, parameter in inspect.signature(Trainer.__init__).parameters.items():
        kinds = {parameter.annotation, *typing.get_args(parameter.annotation)}
        if {int, float} & kinds:
            assert name in known, f"TrainerKeys lacks {name}"


@pytest.mark.parametrize("number", list(numbers(BalanceConfig)), ids=lambda n: n.key)
def test_balance(number, tmp_path):
    from ltplugins.stages.balance import balance

    keys = {"run": str(tmp_path / "nowhere"), "output_dir": str(tmp_path / "out")}
    for value in number.outside():
        with pytest.raises(UserError) as error:
            cfg = OmegaConf.create(keys)
            OmegaConf.update(cfg, number.key, value)
            balance(cfg)
        assert_one_line(error.value, number.said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", list(numbers(FinetuneConfig)), ids=lambda n: n.key)
def test_finetune(number, tmp_path):
    from ltplugins.stages.finetune import finetune

    keys: dict[str, Any] = {"run": str(tmp_path / "nowhere"), "output_dir": str(tmp_path / "out")}
    for value in number.outside():
        with pytest.raises(UserError) as error:
            cfg = OmegaConf.create(keys)
            OmegaConf.update(cfg, number.key, value)
            finetune(cfg)
        assert_one_line(error.value, number.said)
    assert list(tmp_path.iterdir()) == []


def test_evaluate(tmp_path):
    from ltplugins.stages.evaluate import evaluate

    run = {"run": str(tmp_path / "nowhere")}
    for change, said in (
        ({"batch_size": 0}, "batch_size"),
        ({"eval": {"knn": {"temperature": 0}}}, "eval.knn.temperature"),
        ({"eval": {"linear": {"shots": [0]}}}, "eval.linear.shots[0]"),
    ):
        with pytest.raises(UserError) as error:
            evaluate(OmegaConf.create({**run, **change}))
        assert_one_line(error.value, said)
    assert list(tmp_path.iterdir()) == []


# What used to train without a word, or to end in the traceback of another library.
SILENT = {
    "method_kwargs.gh.temperature": (0, -0.1),
    "method_kwargs.gh.epsilon": (0,),
    "method_kwargs.gh.weight": (-1,),
    "method_kwargs.gh.memory_momentum": (2,),
    "method_kwargs.gh.num_iters": (-3,),
    "scheduler.warmup_epochs": (-2,),
    "optimizer.batch_size": (0, -8, 1),
    "optimizer.lr": (-1,),
    "data.num_workers": (-1,),
}
OF_A_BASE = {"method_kwargs.proj_output_dim": (0,), "method_kwargs.temperature": (0,)}


def test_pretraining_refuses_before_a_path_is_looked_up(tmp_path, monkeypatch):
    from ltplugins.host import HOST
    from ltplugins.stages.pretrain import pretrain

    monkeypatch.chdir(tmp_path)
    config = {**config_of("gh_simclr"), "output_dir": str(tmp_path / "run")}
    del config["data"]["ood"], config["data"]["sampler"]
    for key, values in {**SILENT, **(OF_A_BASE if HOST.name == "builtin" else {})}.items():
        for value in values:
            with pytest.raises(UserError) as error:
                pretrain(OmegaConf.create(with_value(config, key, value)))
            assert_one_line(error.value, key)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"nowhere\.npz"):  # the value was the only thing before it
        pretrain(OmegaConf.create(config))


def test_a_sweep_refuses_before_its_first_member(tmp_path, monkeypatch):
    from ltplugins.stages.sweep import plan

    monkeypatch.chdir(tmp_path)
    words = ["-m", "method=gh_simclr", "method_kwargs.gh.temperature=0.1,0"]
    with pytest.raises(UserError, match=r"gh.temperature: expected a number above 0, got 0"):
        plan(words, "pretrain")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("method_kwargs.gh.temperature=-0.1", "method_kwargs.gh.temperature: expected a number"),
        ("optimizer.batch_size=0", "optimizer.batch_size: expected a whole number of 2 or more"),
    ],
)
def test_command_line(word, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["pretrain", "method=gh_simclr", word, f"output_dir={tmp_path / 'run'}"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")
    assert list(tmp_path.iterdir()) == []


def test_the_good_config_is_good_as_packaged():
    """What the walk changes is not what the packaged files say."""
    for method in ("simclr", "gh_colt_simclr", "gml"):
        with initialize_config_module("ltplugins.conf", version_base="1.2"):
            resolve(compose("pretrain", [f"method={method}"]), config_blocks)


def test_a_path_for_embedded_images_is_told_by_its_key():
    theirs, ours = DataConfig("land_pack"), DataPaths(train_path="photos/train")
    with pytest.raises(UserError, match=r"^data\.train_path: expected null.*Leave it out\.$"):
        ours.over(theirs)
