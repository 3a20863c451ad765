# SPDX-License-Identifier: MIT
"""Command lines and YAML configs: read, composed and checked as a stage does, up to its work."""

import contextlib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from omegaconf import OmegaConf

from ltplugins import cli
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.claims.book import read_book
from ltplugins.stages.complete import words
from ltplugins.stages.compose import compose_packaged
from scripts.fuzz.damage import NASTY, bytes_near, trees_near, values
from scripts.fuzz.judge import Reached, Target

HYDRA = ("pretrain", "evaluate", "balance", "finetune", "segment")
# Where a command's work begins: its words have been read and checked by then.
WORK = {
    "pretrain": ("training_set",),
    "evaluate": ("open_run",),
    "balance": ("_open_first",),
    "finetune": ("opened",),
    "segment": ("load_backbone", "_open_first"),
    "features": ("load_backbone",),
    "demo": ("demo",),
    "export": ("export",),
    "multirun": ("_launch",),
    "zoo.serve": ("serve",),
    "zoo.sign": ("sign_zoo",),
}
_OTHERS = (
    ("features", "x", "x", "--out", "x.npz", "--root", "--workers", "--batch-size", "--on-corrupt"),
    ("export", "x", "--timm", "--onnx", "--solo", "--torchvision"),
    ("report", "x", "--out", "--title", "--baseline"),
    ("methods", "gh", "simclr", "gh_colt_simclr"),
    ("demo", "--data", "land", "--fold", "--epochs", "0", "-1", "--seed"),
    ("debug", "x"),
    ("zoo", "list", "info", "get", "verify", "add", "card", "sign", "serve", "--to", "--key",
     "--refresh", "--name", "--port", "--zoo", "zoo", "x"),
)  # fmt: skip
_FLAGS = ("--cfg", "job", "--help", "-m", "--multirun", "--config-name", "--config-path",
          "--config-dir", "--resolve", "--package", "-c", "hydra.job.chdir=true", "--info", "-x",
          "hydra.run.dir=x", "hydra.sweep.dir=x", "hydra/launcher=joblib")  # fmt: skip
_MARKS = ("+", "++", "~", "", "", "", "")


@contextlib.contextmanager
def up_to_work() -> Iterator[None]:
    """Within it no stage gets further than to its work."""

    def reach(*_: Any, **__: Any) -> None:
        raise Reached

    with contextlib.ExitStack() as stack:
        for stage, names in WORK.items():
            module = import_module(f"ltplugins.stages.{stage}")
            for name in names:
                stack.enter_context(mock.patch.object(module, name, reach))
        yield


def command(line: list[str]) -> None:
    """Give a command line, without the program's name."""
    with up_to_work():
        cli.main(line)


@cache
def _keys(stage: str) -> tuple[str, ...]:
    """The words that a stage's command line begins with: ``key=``."""
    names = [word for word in words(stage, "") if word.endswith("=")]
    groups = [f"{group}=" for group in ("hydra", "hydra.job", "method_kwargs", "method_kwargs.gh")]
    return (*names, *groups, "method_kwargs.gh.temperature=", "augmentations.0.crop_size=")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True)


@st.composite
def command_lines(draw: DrawFn) -> list[str]:
    """A command with words that are near to sound ones."""
    if draw(st.integers(0, 5)) == 0:
        name, *known = draw(st.sampled_from(_OTHERS))
        some = st.sampled_from(known) | st.sampled_from(NASTY).map(str) | st.text(max_size=8)
        return [name, *draw(st.lists(some, max_size=6))]
    stage = draw(st.sampled_from(HYDRA))
    line = [stage] if stage == "pretrain" else [stage, draw(st.sampled_from(("x", "run=x", ".")))]
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(_keys(stage)))
        sound = [word.removeprefix(key) for word in words(stage, key)]
        value = _text(draw(values() | st.sampled_from(sound or ["1"])))
        noise = draw(st.text("={}[],:'\"\\$~+@ #a0.\n", max_size=6))
        kind = draw(st.integers(0, 6))
        if kind < 4:
            line.append(draw(st.sampled_from(_MARKS)) + key + value)
        elif kind == 4:
            line.append(key + noise + value + noise)
        elif kind == 5:
            line.append(draw(st.sampled_from(_FLAGS)))
        else:
            line.append(draw(st.text(max_size=10)) + noise)
    return line


@cache
def _sound(stage: str) -> Any:
    """A config of a stage as plain values."""
    return OmegaConf.to_container(compose_packaged(stage, ["run=x"] * (stage != "pretrain")))


@cache
def _texts(stage: str) -> bytes:
    return yaml.safe_dump(_sound(stage)).encode()


def configs() -> SearchStrategy[tuple[str, bytes]]:
    """A stage, or ``run`` and ``claims``, with the bytes of a YAML file that is nearly right."""

    def of(stage: str) -> SearchStrategy[tuple[str, bytes]]:
        kind = "pretrain" if stage == "run" else stage
        tree = _book() if stage == "claims" else _sound(kind)
        sound = yaml.safe_dump(tree).encode()
        dumped = trees_near([tree, {"defaults": ["_self_"], **tree}]).map(_dump)
        return st.tuples(st.just(stage), dumped | bytes_near([sound]))

    return st.sampled_from((*HYDRA, "run", "claims")).flatmap(of)


def _dump(tree: Any) -> bytes:
    return yaml.dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")


@cache
def _book() -> Any:
    measures = ["knn few", "classifier/linear_lt few"]
    claim = {"name": "c", "statement": "s", "paper": "p", "data": "d", "ours": "a", "base": "b",
             "epochs": 2, "measures": measures}  # fmt: skip
    arms = {"a": {"words": ["method=gh_simclr"]}, "b": {"words": ["method=simclr"]}}
    return {"data": {"d": {"words": [], "pairs": ["seed=1"]}}, "arms": arms, "claims": [claim]}


def read_config(given: tuple[str, bytes]) -> None:
    """Give a YAML file to whatever reads one of its kind."""
    stage, content = given
    file = Path("config.yaml")
    file.write_bytes(content)
    if stage == "claims":
        read_book(file)
    elif stage == "run":
        RunFolder(Path.cwd()).config()
    else:
        command([stage, "--config-path", ".", "--config-name", "config"])


OVERRIDES = Target("overrides", command_lines(), command, wishes=True)
CONFIGS = Target("configs", configs(), read_config, wishes=True)
