# SPDX-License-Identifier: MIT
"""Every command that README.md and docs/*.md show works; the blocks are run, shortened.

Shortened: fewer images, one epoch of two batches, a tiny network. The words of the page stay first
in each command, and what is added here comes after them.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from ltplugins import cli
from ltplugins.config.resolve import resolve
from ltplugins.core.schema import parse
from ltplugins.data.sources import named, packs
from ltplugins.downstream.options import FinetuneConfig
from ltplugins.downstream.segmentation.options import SegmentConfig
from ltplugins.stages import demo, sweep
from ltplugins.stages.blocks import config_blocks, run_keys, typed_keys
from ltplugins.stages.claims import command as claims
from ltplugins.stages.claims.book import read_book
from ltplugins.stages.command import read_command
from ltplugins.stages.compose import Composer, compose_packaged
from ltplugins.stages.evaluate import EvaluateKeys
from ltplugins.stages.finetune import finetune_hints
from ltplugins.stages.zoo.family import command as family
from ltplugins.stages.zoo.family.plan import read_family
from ltplugins.training.balancer import BalanceConfig
from tests.kit.hosts import on_the_stand_in
from tests.kit.pages import PAGES, Shown, commands, targets
from tests.kit.paths import ROOT
from tests.kit.solo_yaml import solo_root
from tests.kit.sweeps import train_in_process
from tests.kit.tiny import write_arrays, write_folder

SHORT = [
    *("max_epochs=1", "limit_train_batches=2", "optimizer.batch_size=8", "data.num_workers=0"),
    *("backbone.name=test_resnet", "accelerator=cpu", "enable_progress_bar=false"),
    *("augmentations.0.crop_size=16", "scheduler.warmup_epochs=0", "checkpoint.keep_prev=false"),
]
SPARSE = ["data.stride=32", "data.least=25"]  # a quarter of land's tiles, of the same classes
EVAL = ["eval.linear.shots=[2]", "eval.seeds=[0]", "device=cpu"]
STAGE_KEYS = {"evaluate": EvaluateKeys, "balance": BalanceConfig, "segment": SegmentConfig}
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
# What stands for something else in a page.
STANDS_FOR = {
    "N": "2",
    "RUN": "runs/mine",
    "NAME": "gh_simclr",
    "CKPT": "runs/mine/checkpoints/last.ckpt",
}
ALL = [shown for page in PAGES for shown in commands(page)]
# Those that are run: README's, and the blocks of the other pages that are no sweeps of many.
RUN = [
    shown
    for shown in ALL
    if shown.ltplugins is not None
    and (shown.page == "README.md" or (shown.is_block and "--multirun" not in shown.words))
    and "strategy=ddp" not in shown.words  # with two processes: tests/stages
    and "--help" not in shown.words
    and len(shown.words) > 2 - ("methods" in shown.words)  # "ltplugins balance", in a sentence
]


def words_of(shown: Shown) -> list[str]:
    """What ``ltplugins`` is given, placeholders filled in."""
    given = shown.ltplugins
    assert given is not None
    return [filled(word) for word in given]


def filled(word: str) -> str:
    key, mark, value = word.rpartition("=")
    return f"{key}{mark}{STANDS_FOR.get(value, value)}"


# --- every line is read as the program itself reads it ---


@pytest.mark.parametrize("shown", ALL, ids=str)
def test_a_shown_command_exists(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = list(shown.words)
    if "ltplugins.run" in words:
        check_solo_script(words[words.index("ltplugins.run") + 1 :])
    elif shown.ltplugins is not None:
        check_stage(*words_of(shown)[:1], words_of(shown)[1:])
    elif words[0] == "make":
        given = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        assert {word for word in words[1:] if "=" not in word} <= targets()
        if "ARGS" in given:
            check = check_family if "zoo" in words else check_claims
            check(shlex.split(given["ARGS"]))
    elif words[:2] == ["python", "scripts/claims.py"]:
        check_claims(words[2:])
    elif words[:2] == ["python", "scripts/zoo.py"]:
        check_family(words[2:])
    elif words[:2] == ["python", "-m"]:
        assert (ROOT / words[2].replace(".", "/")).with_suffix(".py").exists()
    elif words[0] == "python":
        assert (ROOT / words[1]).exists()
    elif "bash" in words:
        start = words.index("bash")
        script, *parts = words[start + 1 :]
        text = (ROOT / script).read_text()
        assert set(parts) <= set(re.findall(r"^ {4}(\w+)\)$", text, re.MULTILINE))
        given = dict(word.split("=", 1) for word in words[:start])
        assert all(f"{name}:-" in text or name.startswith("LIMIT_") for name in given), given
        check_claims(shlex.split(given.get("CLAIMS", "")))
    elif words[0] == "...":  # of the command above
        launcher = [word for word in words[1:] if word.startswith("hydra/launcher=")]
        assert launcher
    else:
        assert words[:2] == ["pip", "install"], f"nothing here knows how to check {shown}"


def check_claims(words: list[str]) -> None:
    """Read a command of ``scripts/claims.py``."""
    options = claims.parser().parse_args(words)
    read_book(ROOT / options.file).chosen(options.only)


def check_family(words: list[str]) -> None:
    """Read a command of ``scripts/zoo.py``."""
    options = family.parser().parse_args(words)
    assert {*(options.only or ())} <= read_family(ROOT / options.file)[0].entries.keys()


def check_stage(stage: str, words: list[str]) -> None:
    """Read, compose and type-check a command of ``ltplugins``, and train nothing."""
    if not words:  # a command's name in a sentence
        assert stage in cli._commands(cli._parser())
        return
    if stage == "pretrain" and "--multirun" in words:
        where = [] if any(w.startswith("output_dir=") for w in words) else ["output_dir=runs/all"]
        assert sweep.plan([*words, *where], "pretrain").members
    elif stage == "pretrain":
        command = read_command(words, "pretrain")
        if PLACE in command.config_path:
            return  # solo-learn's own file: run below, where it is at hand
        cfg = Composer(command.config_path, command.config_name, run_keys).compose(command.words)
        resolve(cfg, config_blocks)
    elif stage in STAGE_KEYS:
        keys: Any = STAGE_KEYS[stage]
        rest = [f"run={word}" if "=" not in word else word for word in words]
        Composer("pkg://ltplugins.conf", stage, lambda _: typed_keys(keys)).compose(rest)
    elif stage == "finetune":
        command = read_command([f"run={w}" if "=" not in w else w for w in words], stage)
        composer = Composer(command.config_path, command.config_name, finetune_hints)
        parse(FinetuneConfig, OmegaConf.to_container(composer.compose(command.words)), "")
    else:
        cli._parser().parse_args([stage, *words])


PLACE = "PATH/TO/solo-learn"


def check_solo_script(words: list[str]) -> None:
    root = solo_root()
    if root is None:
        pytest.skip("solo-learn is imported from no source tree")
    assert (root / words[0]).exists()
    if "--config-path" not in words:  # main_knn.py: run in tests/host
        return
    path = root / words[words.index("--config-path") + 1]
    assert (path / words[words.index("--config-name") + 1]).exists()


# --- README's commands are run ---


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout in which every file that the README speaks of is there, tiny."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    for part in ("train", "val"):
        write_folder(folder / "photos" / part, (9, 6, 3), size=80)
        write_arrays(folder / f"{'test' if part == 'val' else part}.npz", (16, 8, 4))
    write_list(folder / "datasets", ("train", "test", "100shot"))
    Image.fromarray(packs.load_pack()["train_images"][0]).save(folder / "my.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shorten(patch)
        yield folder


def write_list(folder: Path, parts: tuple[str, ...]) -> None:
    """ImageNet-LT's lists and images, under the names that its file gives them."""
    lines = [f"n0/{label}_{i}.JPEG {label}" for label in range(3) for i in range(6)]
    (folder / "imagenet/n0").mkdir(parents=True)
    for line in lines:
        pixels = np.full((40, 40, 3), 60 * int(line[-1]), np.uint8)
        Image.fromarray(pixels).save(folder / "imagenet" / line.split()[0])
    for part in parts:
        (folder / f"ImageNet_LT_{part}.txt").write_text("\n".join(lines) + "\n")


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Of the embedded pack a few images a class; sweeps in this process; no pictures."""
    whole = packs.load_pack()
    few = {"train": 120, "probe": 4, "test": 4}
    kept = {}
    for part, count in few.items():
        labels = whole[f"{part}_labels"]
        at = np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)])
        for what in ("images", "labels", "source_index"):
            kept[f"{part}_{what}"] = whole[f"{part}_{what}"][at]
    patch.setattr(named, "load_pack", lambda: kept)

    train_in_process(patch)
    added = {"pretrain": [f"++{word}" for word in SHORT], "evaluate": EVAL}
    patch.setattr(
        demo,
        "compose_packaged",
        lambda name, words, *hints: compose_packaged(name, [*words, *added[name]], *hints),
    )


def run(words: list[str]) -> None:
    """Run a command of ``ltplugins`` in this process, shortened."""
    stage = words[0]
    blocks = [f"eval.{word}" for word in ("linear.shots=[2]", "seeds=[0]")]
    if "--multirun" in words:
        words = [re.sub(r"^seed=1,.*", "seed=1", word) for word in words] + SHORT + blocks
    elif stage == "pretrain":
        words = [*words, *SHORT, *(SPARSE if "data=land" in words else [])]
    elif stage == "evaluate":
        words = [*words, *EVAL]
    elif stage == "balance":
        words = [*words, "epochs=1", "batch_size=8", "accelerator=cpu"]
    elif stage == "finetune":
        words = [*words, "epochs=1", "probe_epochs=1", "batch_size=8", "accelerator=cpu"]
    elif stage == "segment":
        words = [*words, "epochs=1", "batch_size=8", "accelerator=cpu", "data.stride=128"]
    elif stage == "demo":
        words = [*words, "--epochs", "1"]
    elif stage == "features":
        words = [*words, "--device", "cpu", "--workers", "0"]
    try:
        cli.main(words)
    except SystemExit as end:
        assert not end.code, f"exit code {end.code}"


@on_the_stand_in
def test_the_readmes_commands_run_in_their_order(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``make demo`` is ``ltplugins demo``; solo-learn's files have tests of their own."""
    assert "$(BIN)/ltplugins demo\n" in (ROOT / "Makefile").read_text()
    run(["demo"])
    for shown in RUN:
        words = words_of(shown)
        if any(PLACE in word for word in words):
            continue
        try:
            run(words)
        except AssertionError as error:
            raise AssertionError(f"{shown}: {error}\n{capsys.readouterr().err[-1500:]}") from error
    check_neighbours(capsys)
    for made in ("runs/mine/results.json", "runs/demo/report.html", "runs/both/report.md"):
        assert (desk / made).exists(), made


def check_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    """The pages' lines of Python, after their commands; my.png is a picture of the pack."""
    capsys.readouterr()
    for page in ("README.md", "docs/use.md"):
        for block in BLOCK.findall((ROOT / page).read_text()):
            exec(block, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all("fashion_pack/train/" in line for line in lines[:5])
    assert "1.000 fashion_pack/train/0 T-shirt/top" in lines[:5]
