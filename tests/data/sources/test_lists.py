# SPDX-License-Identifier: MIT
"""Lists as editors and systems save them, and files that are none."""

import logging
from pathlib import Path

import pytest

from ltplugins.core.errors import UserError
from ltplugins.data.sources.lists import parse_list

TEXT = "img/Müller 1.png 0\r\nimg/b.png 1\n\n"
ROWS = (["img/Müller 1.png", "img/b.png"], [0, 1])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_every_encoding_gives_the_same_rows(
    encoding: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(TEXT.encode(encoding))
    with caplog.at_level(logging.WARNING):
        names, targets = parse_list(path, False, None)
    assert (names, targets.tolist()) == ROWS
    assert ("read as Latin-1" in caplog.text) == (encoding == "latin-1")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            b'{"images": [' + b'{"id": 1},' * 1000 + b"]}",
            "is JSON. Expected text with 'path label'",
        ),
        (b" [1, 2]", "is JSON"),
        (b"PK\x03\x04\x00\x00", r"is no text.*data.format: arrays"),
        (b"\xff\xfea\x00b", "is damaged"),
        (b"x" * 5000, r"line 1: expected 'path label', got 'x{80}\.\.\.'"),
        (b"\n\n", "the list is empty"),
    ],
)
def test_a_file_that_is_no_list_is_refused_in_one_line(
    content: bytes, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "list"
    path.write_bytes(content)
    with pytest.raises(UserError, match=text) as error:
        parse_list(path, False, None)
    assert len(str(error.value)) < 300 + len(str(path))
