# SPDX-License-Identifier: MIT
"""Texts from elsewhere in Markdown: names of runs, classes and entries obey nothing there.

Whoever writes Markdown takes these; HTML has ``html.escape``, a terminal ``core.console``.
"""

import re
from collections.abc import Sequence

from ltplugins.core.console import printable


def plain(text: str) -> str:
    """Text in Markdown that is read as it stands: no markup, no HTML, no line of its own.

    >>> plain("a|b <i> *c*")
    'a\\\\|b &lt;i&gt; \\\\*c\\\\*'
    """
    text = " ".join(printable(text).split()).replace("\\", "\\\\")
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "|*`[]$~":
        text = text.replace(mark, f"\\{mark}")
    text = re.sub(r"^([-+#])(?![0-9])", r"\\\1", text)  # of a list, of a heading
    text = re.sub(r"^([0-9]+)([.)])(?=\s|$)", r"\1\\\2", text)
    # Inside a word an underscore marks nothing; escaped there, the text would be hard to read.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def code(text: str) -> str:
    r"""Text as a span of code, also in a table's cell: a fence that is longer than any in it.

    >>> code("test_resnet"), code("a`b"), code("a|b")
    ('`test_resnet`', '``a`b``', '`a\\|b`')
    """
    text = " ".join(printable(text).split()).replace("|", "\\|") or " "
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    room = " " * (text[0] == "`" or text[-1] == "`")
    return f"{fence}{room}{text}{room}{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, each line with its end; cells are Markdown, which :func:`plain` makes of text."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
