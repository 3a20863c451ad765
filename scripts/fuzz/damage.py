# SPDX-License-Identifier: MIT
"""Inputs that are nearly right: a sound one with a few changes gets further in than noise does."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

# Values that a reader may not think of; the texts are commands to some reader or other.
NASTY: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e-300, 1e300, float("inf"),
    float("nan"), "", " ", "a", "null", "1e-4", "x" * 3000, "../x", "/dev/zero", "~/x", "a/b\\c",
    "${oc.env:TOKEN}", "${x", "zoo://x", "[/b]", "a|b<i>*x*", "\x1b[2J", "é\u202e", "a\0b", "a\nb",
    "!!python/object/apply:os.system [touch owned]", "__import__('os').system('touch owned')",
    [], [[]], [None], {}, {"": None}, {"_target_": "os.system", "command": "touch owned"},
)  # fmt: skip
_WORDS = (b"", b"\0", b"\xff", b"\n", b"\r", b",", b"[", b"{", b"9" * 5000, b"-1", b"nan", b"1e999",
          b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xef\xbb\xbf", b"\xff\xfe",
          b"[" * 20_000, b"'", b"&a *a", b"!!python/name:os.system", b"\xed\xa0\x80")  # fmt: skip


@st.composite
def bytes_near(draw: DrawFn, samples: Sequence[bytes]) -> bytes:
    """A sample with up to four changes: cut, flipped, repeated, written over, mixed with another.

    Args:
        samples: sound files.
    """
    data = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 64)))
        how = draw(st.integers(0, 7))
        head, middle, tail = data[:start], data[start:stop], data[stop:]
        if how == 0:
            data = head
        elif how == 1:
            data = head + bytes(255 ^ byte for byte in middle) + tail
        elif how == 2:
            data = head + middle * draw(st.sampled_from((0, 2, 3, 500))) + tail
        elif how == 3:
            data = head + draw(st.sampled_from(_WORDS)) + data[start:]
        elif how == 4:
            new = draw(st.binary(max_size=16))
            data = head + new + data[start + len(new) :]
        elif how == 5:
            other = draw(st.sampled_from(samples))
            data = head + other[draw(st.integers(0, len(other))) :]
        elif how == 6:  # a field of a header
            size = draw(st.sampled_from((1, 2, 4, 8)))
            number = draw(st.sampled_from((0, 1, 255, 2**31 - 1, 2**32 - 1)))
            field = (number % 256**size).to_bytes(size, draw(st.sampled_from(("little", "big"))))
            data = head + field + data[start + size :]
        else:
            data = draw(st.binary(max_size=200))
    return data[:1_000_000]


def values() -> SearchStrategy[Any]:
    """Any value of a YAML or JSON file."""
    plain = st.sampled_from(NASTY) | st.integers() | st.floats() | st.text(max_size=12)
    nested = st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
        ),
        max_leaves=6,
    )
    return plain | nested


@st.composite
def trees_near(draw: DrawFn, samples: Sequence[Any], most: int = 3) -> Any:
    """A sample of nested values with up to ``most`` of them changed, gone, renamed or added."""
    tree = copy.deepcopy(draw(st.sampled_from(list(samples))))
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(tree))
        if not places:
            return draw(values())
        block, key = draw(st.sampled_from(places))
        how = draw(st.integers(0, 9))
        if how == 0:
            del block[key]
        elif how == 1 and isinstance(block, dict):
            block[draw(st.text(max_size=8) | st.sampled_from([k for b, k in places]))] = block[key]
        elif how == 2:
            block[key] = draw(st.sampled_from([b[k] for b, k in places]))
            tree = copy.deepcopy(tree) if _is_finite(tree) else {}
        else:
            block[key] = draw(values())
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """All nodes but the root, as a block and a key in it."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting and len(found) < 5000:
        block = waiting.pop()
        keys: Any = ()
        if isinstance(block, Mapping):
            keys = list(block)
        elif isinstance(block, list):
            keys = range(min(len(block), 8))
        for key in keys:
            found.append((block, key))
            waiting.append(block[key])
    return found


def _is_finite(tree: Any) -> bool:
    """Whether no block lies within itself."""
    return len(_places(tree)) < 5000
