# SPDX-License-Identifier: MIT
"""No text of ours fetches PyPI's ``ltplugins``, which is a stranger's."""

import re
import tomllib

import pytest

from ltplugins.core.errors import install
from tests.kit.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TEXTS = (".py", ".md", ".yaml", ".toml", ".txt", ".html", ".cfg")
FILES = ("Makefile", ".ci/run", ".pre-commit-config.yaml")
# The name where a requirement stands: with an extra, a version or an address, or after an
# installer's own words on the line. ``solo-ltplugins`` and paths are something else.
NAME = r"(?<![\w./-])ltplugins"
REQUIREMENT = re.compile(NAME + r"\s?(\[[A-Za-z]|==|>=|~=|@\s*git)")
INSTALLER = re.compile(
    r"\b(?:pip3?|pipx|uv|uvx|poetry|conda|mamba)\s+(?:pip\s+)?(?:install|add|run|download)\b"
    r"[^`|;&\n]*?['\" \t]" + NAME + r"(?![\w./-])"
)


def fetches_the_other(text: str) -> list[str]:
    """The pieces of a text that would install PyPI's ltplugins.

    Prose wraps between an installer and what it installs, so its lines are joined; a fenced block's
    are commands, one each.
    """
    parts = re.split(r"^```.*$", text, flags=re.MULTILINE)
    parts[::2] = [" ".join(prose.split()) for prose in parts[::2]]
    return [
        m[0] for part in parts for form in (REQUIREMENT, INSTALLER) for m in form.finditer(part)
    ]


def texts() -> list[str]:
    hidden = {".venv", ".venv-oldest", ".git", "runs", "build", "dist"}
    found = [ROOT / name for name in FILES if (ROOT / name).exists()]
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if path.suffix in TEXTS and not (set(parts) & hidden) and ".egg-info" not in str(path):
            found.append(path)
    return sorted(str(path.relative_to(ROOT)) for path in found)


def test_the_distribution_has_a_name_of_its_own() -> None:
    assert PROJECT["name"] == "solo-ltplugins"
    assert PROJECT["scripts"] == {"ltplugins": "ltplugins.cli:main"}  # the command stays


def test_no_text_would_install_the_other_package() -> None:
    found = {name: fetches_the_other((ROOT / name).read_text()) for name in texts()}
    found.pop("tests/test_install_lines.py")
    wrong = {name: pieces for name, pieces in found.items() if pieces}
    assert not wrong, f"these fetch a stranger's package from PyPI: {wrong}"
    assert {"README.md", "docs/launch.md", "pyproject.toml", "Makefile"} <= found.keys()


@pytest.mark.parametrize(
    "text",
    [
        'pip install "ltplugins[dali-cu13]"',
        "pip install 'ltplugins[umap]'",
        "or `ltplugins[sweep]`",
        "pip install ltplugins",
        "run pip install\nltplugins, then",
        "pip3 install --upgrade ltplugins",
        "uv pip install ltplugins==1.1.5",
        'all = ["ltplugins[dali]"]',
        "ltplugins>=0.1",
        "uv add torch ltplugins",
    ],
)
def test_the_check_sees_what_would(text: str) -> None:
    assert fetches_the_other(text)


@pytest.mark.parametrize(
    "text",
    [
        'pip install -e ".[dali-cu13]"',
        'pip install "solo-ltplugins[sweep] @ git+file://localhost$PWD"',
        "`pip install -e .`, then `ltplugins demo`.",
        "pip install -e . && ltplugins demo",
        "pip install -e ~/ltplugins",
        "Run pip install -e . in the checkout.\n\n```bash\nltplugins demo\n```",
        "```bash\npip install -e .\nltplugins demo\n```",
    ],
)
def test_and_leaves_what_would_not(text: str) -> None:
    assert not fetches_the_other(text)


def test_every_extra_that_a_text_names_exists_and_is_explained() -> None:
    named = {
        extra.strip()
        for name in texts()
        for group in re.findall(
            r'"(?:\.|solo-ltplugins)\[([a-z0-9,-]+)\]', (ROOT / name).read_text()
        )
        for extra in group.split(",")
    }
    assert named <= set(EXTRAS), f"no such extra: {named - set(EXTRAS)}"
    (part,) = re.findall(r"## Extras\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.DOTALL)
    assert set(EXTRAS) <= set(re.findall(r"`([a-z0-9-]+)`", part))
    assert install("umap") == 'pip install -e ".[umap]"'
