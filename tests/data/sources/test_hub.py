# SPDX-License-Identifier: MIT
"""Sets of Hugging Face's datasets on this machine."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.data.sources import hub
from ltplugins.data.sources.contents import content_hash
from tests.kit.dali import DALI, write_jpegs
from tests.kit.data import data_config, loader_of, source_of

NAMES = ["cat", "dog", "eel"]
datasets = None
if importlib.util.find_spec("datasets"):
    import datasets
needs_datasets = pytest.mark.skipif(datasets is None, reason="datasets is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    if datasets is not None:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


def pictures(count=9, grey=False):
    rng = np.random.default_rng(count)
    shape = (14, 20) if grey else (14, 20, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def table(count=9, *, labels=None, image="image", names=NAMES, grey=False):
    """Row i shows picture i and has label i % 3."""
    columns = {image: pictures(count, grey), "label": labels or [i % 3 for i in range(count)]}
    features = datasets.Features(
        {
            image: datasets.Image(),
            "label": datasets.ClassLabel(names=names) if names else datasets.Value("int64"),
        }
    )
    return datasets.Dataset.from_dict(columns, features=features)


def block(path, **keys):
    return {"dataset": "custom", "format": "hf", "train_path": str(path), **keys}


@needs_datasets
@pytest.mark.parametrize("form", ["saved", "parquet", "hub"])
def test_rows_are_indexes(form, tmp_path):
    path = tmp_path / "set"
    if form == "saved":
        table().save_to_disk(str(path))
    elif form == "parquet":
        path = tmp_path / "set.parquet"
        table().to_parquet(str(path))
    else:  # as a copy of a repository of the Hub lies on a disk
        (path / "data").mkdir(parents=True)
        table().to_parquet(str(path / "data/train-00000-of-00001.parquet"))
    source = source_of(block(path))
    assert source.targets.tolist() == [i % 3 for i in range(9)]
    assert source.class_names == tuple(NAMES) and source.record.image_size == 20
    assert not source.record.grey
    for i, picture in enumerate(pictures()):
        assert np.array_equal(source.load(i), np.asarray(picture))
    chosen = source.subset(np.array([7, 2])).subset(np.array([1, 0]))
    assert np.array_equal(chosen.load(1), source.load(7)) and chosen.targets.tolist() == [2, 1]


@needs_datasets
@pytest.mark.parametrize("engine", ["workers", "batched", DALI])
@pytest.mark.parametrize("workers", [0, 2])
def test_engines_give_true_indexes(engine, workers, tmp_path):
    table().save_to_disk(str(tmp_path / "set"))
    source = source_of(block(tmp_path / "set"))
    plain = [{"crop_size": 14, "num_crops": 1, "mean": [0.0] * 3, "std": [1.0] * 3}]
    loader = loader_of(source, plain, batch_size=3, engine=engine, num_workers=workers)
    seen = {}
    for indexes, (views,), targets in loader:
        for index, view, target in zip(indexes.tolist(), views, targets.tolist(), strict=True):
            assert target == index % 3
            seen[index] = view.permute(1, 2, 0).numpy()
    assert sorted(seen) == list(range(9))
    for index, view in seen.items():
        expected = np.asarray(pictures()[index].crop((3, 0, 17, 14))) / 255
        assert np.abs(view - expected).max() < 1e-2


@needs_datasets
def test_a_folder_of_images_is_read_as_files(tmp_path):
    root = write_jpegs(tmp_path / "photos", (4, 3))
    source, own = source_of(block(root)), source_of({"dataset": "custom", "train_path": str(root)})
    assert source.paths == own.paths and source.class_names == own.class_names
    assert content_hash(source) == content_hash(own)


@needs_datasets
def test_splits(tmp_path):
    path = tmp_path / "set"
    splits = {"train": table(), "validation": table(6), "extra": table(3)}
    datasets.DatasetDict(splits).save_to_disk(str(path))
    cfg = block(path, val_path=str(path), probe_path=str(path / "extra"))
    assert [len(source_of(cfg, part)) for part in ("train", "test", "probe")] == [9, 6, 3]
    with pytest.raises(UserError, match=r"no split 'probe' in it.*has train, validation, extra"):
        source_of(block(path, probe_path=str(path)), "probe")


@needs_datasets
def test_labels_of_other_kinds(tmp_path):
    table(names=None).to_parquet(str(tmp_path / "numbers.parquet"))
    assert source_of(block(tmp_path / "numbers.parquet")).class_names == ("0", "1", "2")
    texts = table().remove_columns("label").add_column("label", ["b", "a", "c"] * 3)
    texts.to_parquet(str(tmp_path / "texts.parquet"))
    found = source_of(block(tmp_path / "texts.parquet"))
    assert found.class_names == ("a", "b", "c") and found.targets.tolist() == [1, 0, 2] * 3
    unlabelled = source_of(block(tmp_path / "texts.parquet", no_labels=True))
    assert (unlabelled.targets == -1).all()
    table(image="picture", grey=True).to_parquet(str(tmp_path / "grey.parquet"))
    grey = source_of(block(tmp_path / "grey.parquet"))
    assert grey.record.grey and grey.load(0).shape == (14, 20, 3)


@needs_datasets
def test_contents_are_known_by_file_split_and_row(tmp_path):
    for name, count in (("one", 9), ("same", 9), ("other", 12)):
        table(count).to_parquet(str(tmp_path / f"{name}.parquet"))
    one, same, other = (
        source_of(block(tmp_path / f"{name}.parquet")) for name in ("one", "same", "other")
    )
    assert content_hash(one) == content_hash(same) != content_hash(other)
    some = np.array([4, 1])
    assert content_hash(one, some) == content_hash(one.subset(some))
    assert content_hash(one, some) != content_hash(one, some[::-1])


@needs_datasets
def test_a_damaged_image_is_named_by_its_row(tmp_path):
    bad = {"bytes": b"no image", "path": "x.png"}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    made = datasets.Dataset.from_dict({"image": [bad, bad], "label": [0, 1]}, features=features)
    made.to_parquet(str(tmp_path / "bad.parquet"))
    loader = loader_of(
        source_of(block(tmp_path / "bad.parquet")),
        [{"crop_size": 8, "num_crops": 1}],
        batch_size=2,
        engine="workers",
    )
    with pytest.raises(UserError, match=r"corrupt image: row \d x.png \(UnidentifiedImageError"):
        list(loader)


@needs_datasets
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: table().remove_columns("label"), "no columns of labels .*named label"),
        (lambda: table().remove_columns("image"), "no columns of images .*named image"),
        (lambda: table(labels=[0, 1, 0] * 3), "1 of 3 classes have no image: 2"),
    ],
)
def test_a_set_that_lacks_something(make, message, tmp_path):
    make().to_parquet(str(tmp_path / "set.parquet"))
    with pytest.raises(UserError, match=message) as told:
        source_of(block(tmp_path / "set.parquet"))
    assert "\n" not in str(told.value)


@needs_datasets
def test_an_empty_set(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_open", lambda path: table().select([]))
    with pytest.raises(UserError, match="no image in it"):
        source_of(block(tmp_path / "set"))


@needs_datasets
def test_another_parts_classes(tmp_path):
    table().to_parquet(str(tmp_path / "train.parquet"))
    table(names=["cat", "fox", "eel"]).to_parquet(str(tmp_path / "test.parquet"))
    with pytest.raises(UserError, match="class 'fox' is not where the training part has it"):
        source_of(
            block(tmp_path / "train.parquet", val_path=str(tmp_path / "test.parquet")), "test"
        )


@needs_datasets
def test_what_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="no such set"):
        source_of(block(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no parquet")
    for name in ("empty", "text.parquet"):
        with pytest.raises(UserError, match="datasets cannot read it") as told:
            source_of(block(tmp_path / name))
        assert "\n" not in str(told.value)


def test_without_the_library(tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()  # where solo-learn's sets lie; no library
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'hf needs .* not installed. Run pip install -e "\.\[hub'):
        source_of(block(tmp_path))
    assert data_config(block(tmp_path)).format == "hf"
