# SPDX-License-Identifier: MIT
"""A run whose checkpoint, facts or curve are damaged: what is lost is said, the way on is taken."""

import shutil
from pathlib import Path

import pytest

from ltplugins.core.errors import UserError
from ltplugins.runs.checkpoint import open_run
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.pretrain import pretrain
from tests.kit.runs import assert_same_run, interrupted, load
from tests.kit.tiny import tiny_config


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unbroken run, ``whole``, and one that was killed in its third epoch."""
    folder = tmp_path_factory.mktemp("damage")
    pretrain(tiny_config(folder, "simclr", output_dir=str(folder / "whole")))
    cfg = tiny_config(folder, "simclr", output_dir=str(folder / "killed"))
    with pytest.MonkeyPatch.context() as patch:
        interrupted(cfg, 2, 1, patch)
    return folder


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged as a warning."""
    lines: list[str] = []
    for room in ("runs.mend", "runs.metrics", "training.own"):
        monkeypatch.setattr(
            f"ltplugins.{room}.log.warning", lambda text, *a: lines.append(text % a)
        )
    return lines


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(b ^ 255 for b in data[middle : middle + 64])
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def again(folders: Path, name: str) -> Path:
    """The killed run's command, over a copy of its folder."""
    return pretrain(tiny_config(folders, "simclr", output_dir=str(folders / name)))


@pytest.fixture
def killed(folders: Path) -> Path:
    """A copy of the killed run."""
    copy = folders / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folders / "killed", copy)
    return copy


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink, Path.touch])
def test_the_checkpoint_before_is_taken(damage, folders, killed, said) -> None:
    assert load(killed / "checkpoints/previous.ckpt")["epoch"] == 0
    damage(killed / "checkpoints/last.ckpt")
    assert_same_run(folders / "whole", again(folders, "copy"))
    if damage is not Path.touch:  # which changes nothing
        text = " ".join(said)
        assert "goes on from" in text
        assert "previous.ckpt: 1 epochs, 5 steps" in text


def test_where_all_are_damaged_nothing_is_begun_anew(folders, killed) -> None:
    for path in (killed / "checkpoints").glob("*.ckpt"):
        cut(path)
    with pytest.raises(UserError, match=r"no checkpoint of .* can be opened.*overwrite=true"):
        again(folders, "copy")
    assert RunFolder(killed).read().progress is None


def test_a_damaged_checkpoint_is_not_opened(killed) -> None:
    flip(killed / "checkpoints/last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt is damaged: .*previous\.ckpt"):
        open_run(killed)
    (killed / "checkpoints/last.ckpt").unlink()
    with pytest.raises(UserError, match=r"last\.ckpt is gone. Beside it lies previous\.ckpt"):
        open_run(killed)


def test_where_run_json_is_gone_its_own_command_writes_it_anew(folders, killed, said) -> None:
    (killed / "run.json").unlink()
    with pytest.raises(UserError, match=r"run\.json is gone. .*own command again.*last\.ckpt"):
        open_run(killed)
    assert_same_run(folders / "whole", again(folders, "copy"))
    assert RunFolder(killed).read().finished
    assert "run.json cannot be read" in said[0]


def test_a_finished_runs_damaged_checkpoint_is_made_again(folders, said) -> None:
    shutil.copytree(folders / "whole", folders / "finished")
    flip(folders / "finished/checkpoints/last.ckpt")
    assert_same_run(folders / "whole", again(folders, "finished"))
    assert "Its last epochs are trained again" in said[0]


def test_small_files(folders, killed, said) -> None:
    """All at once: facts and config come back, and the curve's lost rows are counted."""
    (killed / "run.json").write_text("{")
    (killed / "config.yaml").write_text(": [")
    (killed / "checkpoints/args.json").write_text("\0")
    rows = (killed / "metrics.csv").read_bytes().splitlines(keepends=True)
    rows[2], rows[3] = b"0,\xff\xfe,\0\n", b'0,"4\n'
    (killed / "metrics.csv").write_bytes(b"".join(rows))
    path = again(folders, "copy")
    assert RunFolder(path).read().finished
    text = " ".join(said)
    assert "run.json is damaged" in text
    assert "config.yaml is damaged" in text
    assert "of its rows cannot be read" in text


def test_a_curve_stops_no_training(folders, killed, said) -> None:
    (killed / "metrics.csv").unlink()
    (killed / "metrics.csv").mkdir()
    assert RunFolder(again(folders, "copy")).read().finished
    text = " ".join(said)
    assert "the metrics of the first 10 steps are lost" in text
    assert "the training goes on" in text


def test_without_previous_the_last_one_is_alone(tmp_path) -> None:
    cfg = tiny_config(tmp_path, "simclr", max_epochs=2, checkpoint={"previous": False})
    folder = pretrain(cfg) / "checkpoints"
    assert {p.name for p in folder.iterdir()} == {"last.ckpt", "args.json"}
