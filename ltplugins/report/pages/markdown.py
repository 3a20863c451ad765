# SPDX-License-Identifier: MIT
"""Text that Markdown shows as it is, whatever is in it, as :func:`html.escape` does for HTML."""

import re

from ltplugins.core.console import printable

# An underscore inside of a word is no mark in Markdown, and names of runs are full of them.
_MARKS = re.compile(r"[\\`*\[\]<>|~&$]|(?<![^\W_])_|_(?![^\W_])")
_AT_THE_START = re.compile(r"^([#+\-=]|\d+(?=[.)]))")


def plain(text: str) -> str:
    r"""Text in one line, for a paragraph, a heading or a cell.

    >>> print(plain("gh_simclr [x](http://y) <b> a|b"))
    gh_simclr \[x\](http://y) \<b\> a\|b
    >>> print(plain("# one\n2. two"), plain("1. one"))
    \# one 2. two 1\. one
    """
    text = _MARKS.sub(r"\\\g<0>", " ".join(printable(text).split()))
    start = _AT_THE_START.match(text)
    if start is None:
        return text
    mark = start[0]
    return f"{mark}\\{text[len(mark) :]}" if mark.isdigit() else f"\\{text}"
