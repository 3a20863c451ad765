# SPDX-License-Identifier: MIT
"""Manifests (what a run, its results and an entry say of themselves) and checkpoints."""

import io
import json
import os
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from safetensors.torch import save

from ltplugins import cli
from ltplugins.config.resolve import resolve
from ltplugins.core.records import to_plain
from ltplugins.eval.results import Results, SplitName
from ltplugins.host import prepare
from ltplugins.host.build import build_model
from ltplugins.runs.checkpoint import open_run
from ltplugins.runs.facts import Origin, RunFacts, SplitFacts
from ltplugins.runs.seal import save_sealed
from ltplugins.zoo.load import load_backbone
from scripts.fuzz.damage import bytes_near, trees_near
from scripts.fuzz.judge import Target
from tests.kit.study import make_run
from tests.kit.tiny import tiny_config

_SPLIT = SplitFacts("all images", "0" * 64, 42, [24, 12, 6], ["a", "b", "c"])
_NAMES = ("run.json", "results.json", "config.yaml", "metrics.csv", "config.json", "args.json")
_METRICS = b"epoch,step,metric,value\n0,4,train_nce_loss,2.5\n1,9,train_nce_loss,2.0\n"


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


@cache
def _content() -> dict[str, Any]:
    """A checkpoint of a tiny run, as plain values and tensors."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        cfg = resolve(tiny_config(Path(folder), "simclr"))
    host = prepare()
    model = build_model(cfg.with_counts(42, 3).host, 1, False)
    config = json.loads(json.dumps(_plain(cfg.host)))
    origin = to_plain(Origin(method="simclr", host=host.label, split=_SPLIT))
    progress = {"epochs": 3, "planned_epochs": 3, "steps": 15, "planned_steps": 15}
    meta = {**origin, "config": config, "progress": progress, "small_stem": False}
    return {"epoch": 2, "global_step": 15, "state_dict": dict(model.state_dict()),
            "ltplugins": meta}  # fmt: skip


def _plain(cfg: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(cfg, resolve=True)


def _saved(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@cache
def sound_checkpoints() -> tuple[bytes, ...]:
    """Sound files: torch's archive, its older form, one with a seal, and what is none."""
    sealed = Path(f"/tmp/fuzz-sealed-{os.getpid()}.ckpt")
    save_sealed(_content(), sealed)
    data = sealed.read_bytes()
    sealed.unlink()
    old = io.BytesIO()
    torch.save(_content(), old, _use_new_zipfile_serialization=False)
    evil = {**_content(), "epoch": _Evil()}
    return _saved(_content()), data, old.getvalue(), _saved(evil), pickle.dumps(evil)


@st.composite
def checkpoints(draw: DrawFn) -> bytes:
    """The bytes of a checkpoint: damaged ones, and whole ones that say something else."""
    if draw(st.integers(0, 2)) == 0:
        return draw(bytes_near(sound_checkpoints()))
    rest = {key: value for key, value in _content().items() if key != "state_dict"}
    tree = draw(trees_near([rest]))
    if not isinstance(tree, dict):
        return _saved(tree)
    state = dict(_content()["state_dict"])
    key = draw(st.sampled_from(sorted(state)))
    change = draw(st.integers(0, 7))
    if change == 0:
        del state[key]
    elif change == 1:
        state[key] = draw(st.sampled_from((None, 3, "x", [], torch.zeros(2), torch.zeros(()))))
    elif change == 2:
        state = draw(st.sampled_from((None, [], {}, "x", {3: torch.zeros(1)}, {"": 0})))
    try:
        return _saved({"state_dict": state, **tree})
    except Exception:  # a text that no encoding has
        return b""


def use_checkpoint(content: bytes) -> None:
    """Open it as an evaluation does, and as a backbone."""
    Path("x.ckpt").write_bytes(content)
    open_run("x.ckpt")
    load_backbone("x.ckpt")


@cache
def _entry() -> tuple[Any, bytes]:
    """``config.json`` of an entry, with our facts, and its weights."""
    whole = _content()["state_dict"].items()
    state = {k.removeprefix("backbone."): v for k, v in whole if k.startswith("backbone.")}
    state = {key: value.contiguous() for key, value in state.items()}
    seen = {"input_size": [3, 16, 16], "interpolation": "bilinear", "crop_pct": 1.0,
            "crop_mode": "center", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}  # fmt: skip
    own = {"version": 2, "ltplugins": "0.1.0", "label": "simclr", "num_features": 512,
           "dataset": "custom", "seed": 0, "epochs": 3, "small_stem": False,
           "origin": to_plain(Origin(method="simclr", host="x", split=_SPLIT)),
           "zoo": {"config": _content()["ltplugins"]["config"]}}  # fmt: skip
    own.pop("zoo")
    config = {"architecture": "test_resnet", "num_classes": 0, "num_features": 512,
              "pretrained_cfg": seen, "model_args": {}, "ltplugins": own}  # fmt: skip
    return config, save(state)


def _json(name: str) -> bytes:
    return json.dumps(sound_manifest(name)).encode()


@cache
def sound_manifest(name: str) -> Any:
    """What a file of a run or of an entry says, as plain values."""
    if name == "metrics.csv":
        return None
    if name == "run.json":
        origin = Origin(method="simclr", host="x", split=_SPLIT)
        facts = to_plain(RunFacts.begin(origin, {"a": 1}))
        return {**facts, "command": ["ltplugins", "pretrain"], "git": "0" * 12}
    if name == "results.json":
        scores = vars(make_run("simclr", 1).results)
        results = Results(**scores, run="x", method="simclr", seed=0, epoch=3, host="x",
                          dataset="custom", split=SplitName("0", "d"),
                          class_names=["a"] * 10, features={}, options={},
                          evaluated="2026")  # fmt: skip
        return json.loads(json.dumps(to_plain(results)))
    if name in ("args.json", "config.yaml"):  # YAML reads JSON
        return _content()["ltplugins"]["config"]
    return _entry()[0]


def manifests() -> SearchStrategy[tuple[str, bytes]]:
    """A file's name, and bytes of it that are nearly right."""

    def of(name: str) -> SearchStrategy[tuple[str, bytes]]:
        if name == "metrics.csv":
            return st.tuples(st.just(name), bytes_near([_METRICS]))
        tree = trees_near([sound_manifest(name)]).map(lambda tree: json.dumps(tree).encode())
        return st.tuples(st.just(name), tree | bytes_near([_json(name)]))

    return st.sampled_from(_NAMES).flatmap(of)


def use_manifest(given: tuple[str, bytes]) -> None:
    """Put it into the folder that it is of, and give that to whoever reads it."""
    name, content = given
    if name == "config.json":
        Path("model.safetensors").write_bytes(_entry()[1])
        Path(name).write_bytes(content)
        load_backbone(".")
        open_run(".")
    elif name == "args.json":
        bare = {k: v for k, v in _content().items() if k != "ltplugins"}
        Path("x.ckpt").write_bytes(_saved(bare))
        Path(name).write_bytes(content)
        load_backbone("x.ckpt")
    else:
        files = {of: _json(of) for of in ("run.json", "results.json", "config.yaml")}
        for of, data in {**files, "metrics.csv": _METRICS, name: content}.items():
            Path(of).write_bytes(data)
        Path("checkpoints").mkdir()
        Path("checkpoints/last.ckpt").write_bytes(sound_checkpoints()[0])
        open_run(".")
        cli.main(["report", ".", "--out", "out"])
        cli.main(["evaluate", ".", "device=cpu", "data.val_path=none.npz"])


def _ready() -> None:
    """Make the sound files, once."""
    sound_checkpoints()
    for name in _NAMES:
        sound_manifest(name)


MANIFESTS = Target("manifests", manifests(), use_manifest, _ready)
CHECKPOINTS = Target("checkpoints", checkpoints(), use_checkpoint, _ready)
