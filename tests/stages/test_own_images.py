# SPDX-License-Identifier: MIT
"""The command line of one's own images: paths as they are called, sets, pools, optimizers."""

from pathlib import Path
from typing import get_args

import pytest

from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.data.schema import EMBEDDED, POOLS, Dataset
from ltplugins.stages.blocks import run_keys
from ltplugins.stages.command import parse_words
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.implied import FILES

COLOUR = ("augmentations=small",)
SETS = sorted(set(get_args(Dataset)) - set(POOLS))


def run_of(*words: str) -> RunConfig:
    return resolve(compose_packaged("pretrain", words, run_keys))


@pytest.mark.parametrize(
    "word", ["data.train_path=Müller", "data.train_path=photos (1)", "data.train_path=a=b [2]/x;y"]
)
def test_a_path_needs_no_quotes(word: str) -> None:
    assert run_of(word).data.train_path == word.partition("=")[2]
    (parsed,) = parse_words([word])
    assert parse_words([str(parsed.input_line)])[0].value() == parsed.value()  # as Hydra gets it


def test_home_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    run = run_of("data.train_path=~/photos", "data.ood.train_path='~/x'", "output_dir=~/runs/a")
    assert (run.data.train_path, run.output_dir) == ("/home/me/photos", "/home/me/runs/a")
    assert run.data.ood is not None and run.data.ood.train_path == "/home/me/x"
    assert compose_packaged("evaluate", ["run=~/runs/a"]).run == "/home/me/runs/a"


def test_a_path_alone_means_ones_own_images_with_their_own_tail() -> None:
    run = run_of("data.train_path=photos/train", "data.format=image_folder")
    assert (run.data.dataset, run.data.imbalance, run.name) == ("custom", None, "photos")
    assert run.output_dir == "runs/simclr/photos"
    assert run_of("data.format=arrays").data.dataset == "custom"
    named = run_of("data.dataset=fashion_mnist", "data.train_path=d")
    assert (named.data.dataset, named.name) == ("fashion_mnist", "fashion_mnist")
    assert run_of("data=cifar100_lt", "data.train_path=d").data.dataset == "cifar100"
    assert run_of().name == "fashion" and run_of("name=mine").name == "mine"


@pytest.mark.parametrize("name", SETS)
def test_a_set_named_alone_does_not_inherit_the_tail_of_the_files_set(name: str) -> None:
    """The garments' factor of 100 thinned one's own images, and their order of classes CIFAR's."""
    paths = [] if name in EMBEDDED else ["data.train_path=d", "data.val_path=d"]
    alone = run_of(f"data.dataset={name}", *paths, *COLOUR)
    chosen = run_of(f"data={FILES.get(name, 'custom')}", f"data.dataset={name}", *paths, *COLOUR)
    assert alone.data == chosen.data and alone.data.dataset == name
    tail = alone.data.imbalance
    if name in FILES:
        assert compose_packaged("pretrain", [f"data={FILES[name]}"]).data.dataset == name
    else:
        assert tail is None
    if name.startswith("cifar"):
        assert tail is not None and (tail.factor, tail.class_order) == (100, "natural")


def test_a_set_may_be_named_beside_its_file_and_a_tail_beside_a_set() -> None:
    tail = "data.imbalance={kind: exp, factor: 10, split_seed: 3}"
    told = run_of("data.dataset=custom", "data.train_path=d", tail, *COLOUR).data.imbalance
    assert told is not None and (told.factor, told.split_seed) == (10, 3)
    listed = run_of("data=imagenet_lt", "data.dataset=imagenet100", *COLOUR).data
    assert (listed.dataset, listed.format) == ("imagenet100", "file_list")


def test_a_named_set_does_not_drop_a_path() -> None:
    with pytest.raises(UserError, match=r"data.train_path: .*fashion_pack is embedded"):
        run_of("data.dataset=fashion_pack", "data.train_path=photos")


@pytest.mark.parametrize("data", ["data.train_path=photos", "data=cifar100_lt"])
def test_the_pool_of_other_data_must_be_named(data: str) -> None:
    with pytest.raises(UserError, match=r"data.ood names no pool"):
        run_of("method=colt_simclr", data)
    told = run_of("method=gh_colt_simclr", data, "data.ood.dataset=emoji_pack")
    own = run_of("method=colt_simclr", data, "data.ood.train_path=others")
    assert told.data.ood is not None and told.data.ood.dataset == "emoji_pack"
    assert own.data.ood is not None and own.data.ood.dataset == "custom"
    fashion = run_of("method=colt_simclr").data.ood
    assert fashion is not None and fashion.dataset == "emoji_pack"


def test_another_optimizer_does_not_inherit_the_files_arguments() -> None:
    assert run_of("optimizer.name=adam").optimizer.kwargs == {}
    assert run_of("optimizer.name=sgd").optimizer.kwargs == {"momentum": 0.9}
    assert run_of("optimizer.name=lars").optimizer.kwargs == {"momentum": 0.9}  # solo-learn's
    given = run_of("optimizer.name=adamw", "optimizer.kwargs.momentum=0.5")
    assert given.optimizer.kwargs == {"momentum": 0.5}


def test_help_shows_ones_own_images_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from ltplugins.stages import pretrain

    pretrain.main(["data.train_path=photos (1)", "--cfg", "job"])
    shown = capsys.readouterr().out
    assert "dataset: custom" in shown and "photos (1)" in shown
