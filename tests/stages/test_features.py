# SPDX-License-Identifier: MIT
"""``ltplugins features``: the evaluation's numbers, one file, the same after a kill."""

import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from ltplugins.cli import main
from ltplugins.core.errors import UserError
from ltplugins.eval import table
from ltplugins.eval.extractor import FeatureExtractor
from ltplugins.eval.parts import Parts
from ltplugins.runs.checkpoint import open_run
from ltplugins.stages.features import features
from ltplugins.stages.pretrain import pretrain
from ltplugins.zoo.load import load_backbone
from tests.kit import forked
from tests.kit.tiny import tiny_config, write_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return pretrain(tiny_config(tmp_path_factory.mktemp("run"), "simclr", max_epochs=1))


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(table, "_PIECE", 5)


def read(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_they_are_those_of_the_evaluation(run, tmp_path):
    test = run.parent / "test.npz"
    found = read(features(run, str(test), tmp_path / "f.npz", device="cpu"))
    opened = open_run(run)
    expected = FeatureExtractor(opened, Parts(opened), "cpu", 256)("test")
    assert np.array_equal(found["features"], expected.feats.numpy())
    assert found["labels"].tolist() == expected.targets.tolist()
    assert found["names"].tolist() == [str(i) for i in range(24)]
    assert found["class_names"].tolist() == ["0", "1", "2"]


@pytest.mark.parametrize("form", ["npz", "parquet"])
@pytest.mark.parametrize("labelled", [True, False])
def test_both_forms_hold_the_same(run, tmp_path, form, labelled, small_pieces):
    write_folder(tmp_path / "photos", (6, 4, 2), size=20)
    if not labelled:
        Image.new("RGB", (9, 9)).save(tmp_path / "photos/z.png")
    count = 12 if labelled else 13
    options = {"batch_size": 3, "num_workers": 0}
    one = read(features(run, str(tmp_path / "photos"), tmp_path / "one.npz", **options))
    assert one["features"].shape == (count, load_backbone(run).num_features)
    assert ("labels" in one) is labelled
    out = features(run, str(tmp_path / "photos"), tmp_path / f"two.{form}", **options)
    if form == "npz":
        assert out.read_bytes() == (tmp_path / "one.npz").read_bytes()
        return
    pq = pytest.importorskip("pyarrow.parquet")
    rows = pq.read_table(out).to_pydict()
    assert np.array_equal(np.array(rows["features"], np.float32), one["features"])
    assert rows["name"] == one["names"].tolist()
    if labelled:
        assert rows["label"] == one["labels"].tolist()
        assert rows["class_name"] == [name.split("/")[0] for name in rows["name"]]
    again = features(run, str(tmp_path / "photos"), tmp_path / "three.parquet", **options)
    assert again.read_bytes() == out.read_bytes()


KILLED = """
import os, signal, sys
from ltplugins.eval import table
from ltplugins.stages import features as stage
table._PIECE = 5
real = table._extract
def extract(job, start, *rest):
    if start >= 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(job, start, *rest)
table._extract = extract
stage.features(sys.argv[1], sys.argv[2], sys.argv[3], device="cpu", batch_size=5)
"""


def test_a_killed_one_goes_on_and_ends_as_the_unbroken_one(
    run, tmp_path, small_pieces, monkeypatch
):
    images, out = str(run.parent / "test.npz"), tmp_path / "f.npz"
    done = forked.run([sys.executable, "-c", KILLED, str(run), images, str(out)])
    assert done.returncode == -signal.SIGKILL
    assert not out.exists() and len(list(tmp_path.glob(".f.npz.pieces/*.safetensors"))) == 2
    starts = []
    real = table._extract

    def extract(job, start, *rest):
        starts.append(start)
        return real(job, start, *rest)

    monkeypatch.setattr(table, "_extract", extract)
    features(run, images, out, device="cpu", batch_size=5)
    assert starts == [10, 15, 20]
    whole = features(run, images, tmp_path / "whole.npz", device="cpu", batch_size=5)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.npz", "whole.npz"]


def test_a_damaged_piece_is_extracted_again(run, tmp_path, small_pieces, monkeypatch):
    images, out = str(run.parent / "test.npz"), tmp_path / "f.npz"
    monkeypatch.setattr(table, "write_table", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        features(run, images, out, device="cpu", batch_size=5)
    monkeypatch.undo()
    monkeypatch.setattr(table, "_PIECE", 5)
    (piece, *_) = tmp_path.glob(".f.npz.pieces/*.safetensors")
    piece.write_bytes(piece.read_bytes()[:-3])
    features(run, images, out, device="cpu", batch_size=5)
    whole = features(run, images, tmp_path / "whole.npz", device="cpu", batch_size=5)
    assert out.read_bytes() == whole.read_bytes()


def test_again_is_nothing_to_do_and_other_content_is_refused(run, tmp_path, caplog):
    write_folder(tmp_path / "photos", (2, 2), size=16)
    out, photos = tmp_path / "f.npz", str(tmp_path / "photos")
    features(run, photos, out, num_workers=0)
    before = out.read_bytes()
    with caplog.at_level("INFO", logger="ltplugins"):
        features(run, photos, out, num_workers=0)
    assert "complete: nothing to extract" in caplog.text
    Image.new("RGB", (16, 16)).save(tmp_path / "photos/class0/0.png")
    for images, model in ((photos, run), ("fashion_pack/probe", run)):
        with pytest.raises(UserError, match=r"f\.npz holds features of other content"):
            features(model, images, out, num_workers=0)
    shutil.copytree(run, tmp_path / "other")
    file = tmp_path / "other/checkpoints/last.ckpt"
    content = torch.load(file, weights_only=True)
    next(v for k, v in content["state_dict"].items() if k.startswith("backbone.")).add_(1)
    torch.save(content, file)
    (tmp_path / "photos/class0/0.png").unlink()
    with pytest.raises(UserError, match="holds features of other content"):
        features(tmp_path / "other", photos, out, num_workers=0)
    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_image_ends_it_or_is_left_out(run, tmp_path, small_pieces, caplog):
    write_folder(tmp_path / "photos", (7, 3), size=16)
    (tmp_path / "photos/class0/6.png").write_text("no picture")
    photos, out = str(tmp_path / "photos"), tmp_path / "f.npz"
    options = {"num_workers": 0, "batch_size": 5}
    with pytest.raises(UserError, match=r"class0/6\.png is no image .*--on-corrupt skip"):
        features(run, photos, out, **options)
    features(run, photos, out, on_corrupt="skip", **options)
    found = read(out)
    assert len(found["names"]) == len(found["features"]) == len(found["labels"]) == 9
    assert "class0/6.png" not in found["names"]
    assert "1 of 10 images cannot be decoded" in caplog.text


def test_what_is_no_picture_is_found_before_a_model_is_opened(tmp_path):
    write_folder(tmp_path / "photos", (3,), size=16)
    (tmp_path / "photos/class0/1.png").write_text("no picture")
    with pytest.raises(UserError, match=r"class0/1\.png is no image .*--on-corrupt skip"):
        features(tmp_path / "no model", str(tmp_path / "photos"), tmp_path / "f.npz")
    (tmp_path / "photos/class0/1.png").unlink()
    limit = r"16 x 16 pixels, expected at most 255; .*--max-pixels\) to 256"
    with pytest.raises(UserError, match=limit):
        features(tmp_path / "none", str(tmp_path / "photos"), tmp_path / "f.npz", max_pixels=255)


def test_a_picture_whose_end_is_gone_leaves_nothing_behind(run, tmp_path, capsys):
    """Its head is whole: it is found when it is decoded. The limit is the command's."""
    write_folder(tmp_path / "photos", (3,), size=16)
    file = tmp_path / "photos/class0/1.png"
    file.write_bytes(file.read_bytes()[:-200])
    before = sorted(tmp_path.rglob("*"))
    words = (run, tmp_path / "photos", "--out", tmp_path / "f.npz", "--workers", "0")
    assert "corrupt image: " in refused(capsys, *words)
    assert "expected at most 9" in refused(capsys, *words, "--max-pixels", "9")
    assert sorted(tmp_path.rglob("*")) == before


def test_all_damaged(run, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    with pytest.raises(UserError, match="none of 2 images can be decoded"):
        features(run, str(tmp_path), tmp_path / "f.npz", on_corrupt="skip", num_workers=0)


# --- the command line ---


def refused(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(["features", *map(str, words)])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    return message


def test_the_command(run, tmp_path, capsys):
    images = run.parent / "test.npz"
    words = ["--out", str(tmp_path / "new/f.npz"), "--device", "cpu", "--workers", "0"]
    main(["features", str(run), str(images), *words])
    assert "written:" in capsys.readouterr().out
    assert read(tmp_path / "new/f.npz")["features"].shape[0] == 24


def test_refusals_are_one_line_and_leave_nothing(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.npz").write_text("mine")
    (tmp_path / "gone").mkdir()
    (tmp_path / "folder.npz").mkdir()
    before = sorted(tmp_path.rglob("*"))
    images, out = run.parent / "test.npz", tmp_path / "f.npz"
    cases = {
        "does not exist": (tmp_path / "none/x.ckpt", images, "--out", out),
        "holds no model": (tmp_path / "gone", images, "--out", out),
        "unknown backbone": ("resnet_81", images, "--out", out),
        "no image in it": (run, tmp_path / "empty", "--out", out),
        "expected a folder of images": (run, tmp_path / "nowhere", "--out", out),
        "ends with .npz or .parquet": (run, images, "--out", tmp_path / "f.csv"),
        "is no file of features": (run, images, "--out", tmp_path / "notes.npz"),
        "got the folder": (run, images, "--out", tmp_path / "folder.npz"),
        "can be written": (run, images, "--out", tmp_path / "notes.npz/f.npz"),
        "expected auto, cpu": (run, images, "--out", out, "--device", "tpu"),
        "whole number of 1": (run, images, "--out", out, "--batch-size", "0"),
    }
    for text, words in cases.items():
        assert text in refused(capsys, *words), text
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    message = refused(capsys, run, images, "--out", tmp_path / "f.parquet")
    assert "needs pyarrow" in message and "[parquet]" in message
    assert sorted(tmp_path.rglob("*")) == before


def test_two_at_once_are_refused(run, tmp_path):
    (tmp_path / ".f.npz.pieces").mkdir()
    lock = FileLock(tmp_path / ".f.npz.pieces/.lock")
    with lock, pytest.raises(UserError, match="another process is writing"):
        features(run, str(run.parent / "test.npz"), tmp_path / "f.npz")
