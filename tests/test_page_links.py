# SPDX-License-Identifier: MIT
"""Every file of ours that a page names is there, and every link of a page leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.kit.pages import FENCE
from tests.kit.paths import ROOT

PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("", "docs", "scripts", "zoo")
    for path in (ROOT / folder).glob("*.md" if folder in ("", "docs") else "**/*.md")
    if path.name != "CHANGELOG.md"  # which tells of files that were moved since
)
ENDING = "py|md|ya?ml|sh|csv|json|txt|png|html|toml"
NAMED = re.compile(rf"\b((?:tests|ltplugins|scripts|docs|zoo)/[\w./-]+\.(?:{ENDING}))\b")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
PLACEHOLDER = re.compile(r"(^|/)(test_)?x\.\w+$")  # CONTRIBUTING's method of your own


def named_files(text: str) -> list[str]:
    """Paths of our top-level folders; not those of another checkout, PATH/TO/scripts/..."""
    found = [m[1] for m in NAMED.finditer(text) if text[m.start() - 1 : m.start()] != "/"]
    return [name for name in found if not PLACEHOLDER.search(name)]


def anchors(text: str) -> set[str]:
    """What a link into a page may end in: its headings in lower case, joined by hyphens."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def dead_links(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    dead = []
    for target, anchor in LINK.findall(FENCE.sub("", text)):
        goal = page.parent / target if target else page
        is_dead = not goal.exists()
        if anchor and not is_dead:
            is_dead = anchor not in anchors(goal.read_text(encoding="utf-8"))
        if is_dead:
            dead.append(f"{target}#{anchor}" if anchor else target)
    return dead


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_a_page_names_exist(page: str) -> None:
    named = named_files((ROOT / page).read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    assert dead_links(ROOT / page) == []


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    text = (
        "# One page\n`tests/gone/test_it.py`, [b](b.md), [c](#one-page), [d](#two), `x/docs/a.md`\n"
    )
    (tmp_path / "a.md").write_text(text)
    assert named_files(text) == ["tests/gone/test_it.py"]
    assert dead_links(tmp_path / "a.md") == ["b.md", "#two"]
