# SPDX-License-Identifier: MIT
"""Lists of files, and files of indices: of a data set, of a long tail, and the index of a zoo."""

import hashlib
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from PIL import Image

from ltplugins import cli
from ltplugins.data.index_file import read_index_file
from ltplugins.data.sources.files import file_list
from ltplugins.data.sources.given import open_images
from scripts.fuzz.damage import bytes_near, trees_near
from scripts.fuzz.judge import Target

_IMAGES = ("a.png", "sub/b c.png", "é.png")
_LINES = "".join(f"{name} {label}\n" for label, name in enumerate(_IMAGES))
LISTS_OF = {"labelled": _LINES.encode(), "plain": "\n".join(_IMAGES).encode(),
            "given": _LINES.encode("utf-16")}  # fmt: skip
_LISTS = (
    *LISTS_OF.values(),
    _LINES.replace("\n", "\r\n").encode("utf-8-sig"),
    _LINES.encode("latin-1"),
)
_ENTRY = "simclr-tiny"


def _write_images() -> None:
    Path("sub").mkdir()
    for name in _IMAGES:
        Image.new("RGB", (4, 4)).save(name)


@st.composite
def file_lists(draw: DrawFn) -> tuple[str, bytes]:
    """How it is opened, and the bytes of a list."""
    line = st.sampled_from(_IMAGES) | st.text(max_size=8)
    label = st.sampled_from(("0", "1", "2", "-1", "٣", "9" * 30, "²", "1e3", "", " "))
    made = st.lists(st.tuples(line, label).map(" ".join), max_size=5).map("\n".join)
    content = draw(bytes_near(_LISTS) | made.map(lambda t: t.encode("utf-8", "surrogatepass")))
    return draw(st.sampled_from(("labelled", "plain", "of three", "given"))), content


def read_list(given: tuple[str, bytes]) -> None:
    """Open the images of a list, and load them."""
    how, content = given
    _write_images()
    Path("list.txt").write_bytes(content)
    if how == "given":
        opened = open_images("list.txt")
        assert len(opened.names) == len(opened.source)
        source: Any = opened.source
    else:
        classes = 3 if how == "of three" else None
        source = file_list("list.txt", no_labels=how == "plain", num_classes=classes)
    for i in range(len(source)):
        if Path(source.paths[i]).resolve().is_relative_to(Path.cwd()):
            source.load(i)


def numpy_bytes(array: Any) -> bytes:
    """An .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


_INDICES = (
    numpy_bytes(np.arange(5)),
    numpy_bytes(np.array([3, 1], np.uint8)),
    b"0\n1\n2\n",
    b"7\n\n4",
)
_ODD_ARRAYS = (np.zeros(0, int), np.zeros((2, 2), int), np.ones(3), np.array(["a"]), np.array(1))


def _listing() -> Any:
    file = {"sha256": hashlib.sha256(b"12345").hexdigest(), "size": 5}
    told = {"method": "simclr", "dataset": "custom", "backbone": "x", "epochs": 3, "runs": 1}
    names = ("config.json", "model.safetensors", "README.md")
    headline = {"protocol": "knn", "mean": 0.5, "std": None}
    return {"files": dict.fromkeys(names, file), **told, "headline": headline}


@cache
def sound_index() -> Any:
    """Of a zoo of two entries."""
    return {"version": 1, "entries": {_ENTRY: _listing(), "other": _listing()}}


def indices() -> SearchStrategy[tuple[str, bytes]]:
    """The name of an index file, and its bytes."""
    arrays = bytes_near(_INDICES) | st.sampled_from(_ODD_ARRAYS).map(numpy_bytes)
    own = st.tuples(st.sampled_from(("index.npy", "index.txt")), arrays)
    sound = json.dumps(sound_index()).encode()
    tree = trees_near([sound_index()]).map(lambda tree: json.dumps(tree).encode())
    return own | st.tuples(st.just("zoo"), tree | bytes_near([sound]))


def read_index(given: tuple[str, bytes]) -> None:
    """Read an index of images; of a zoo list it, and ask for an entry of it."""
    name, content = given
    if name != "zoo":
        Path(name).write_bytes(content)
        read_index_file(name, 8)
        return
    entry = Path("zoo") / _ENTRY
    entry.mkdir(parents=True)
    for file in ("config.json", "model.safetensors", "README.md"):
        (entry / file).write_bytes(b"12345")
    (entry.parent / "index.json").write_bytes(content)
    cli.main(["zoo", "list"])
    cli.main(["zoo", "get", _ENTRY, "--to", "copy"])


LISTS = Target("lists", file_lists(), read_list)
INDICES = Target("indices", indices(), read_index)
