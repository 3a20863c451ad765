# SPDX-License-Identifier: MIT
"""Imports point down: a room knows only the floors below its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.paths import ROOT

# From the ground up; rooms of one floor do not know each other.
FLOORS = (
    ("core",),
    ("catalogue", "losses", "metrics", "data"),
    ("config",),
    ("host",),
    ("runs",),
    ("methods",),
    ("training", "eval"),
    ("report", "zoo"),
    ("downstream",),
    ("stages",),
    ("cli", "run"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PACKAGE = ROOT / "ltplugins"
# The facade is opened from outside and from the top; Hydra alone opens conf,
# whose nodes the registry describes.
NO_ROOM = {"__init__", "conf"}


def room_of(path: Path) -> str:
    """The room of a file of the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if room_of(path) not in NO_ROOM]


def imported(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of whatever a file imports of ours, wherever it stands."""
    package = ("ltplugins", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            names = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
        yield from ((node.lineno, name) for name in names if name.startswith("ltplugins."))


def called(node: ast.Call) -> str:
    """The last part of a called function's name."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def upward(path: Path, text: str) -> list[str]:
    """What a file imports from its own floor's other rooms or from above."""
    own = room_of(path)
    found = []
    for line, name in imported(path, text):
        other = name.split(".")[1]
        if other == own or other not in FLOOR:
            continue
        if FLOOR[other] >= FLOOR[own]:
            found.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    return found


def test_imports_point_down() -> None:
    found = [line for path in files() for line in upward(path, path.read_text())]
    assert not found, "\n".join(["imports that point up:", *found])


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(path) for path in files()}
    assert rooms <= set(FLOOR), f"tests/test_floors.py knows no floor of {rooms - set(FLOOR)}"


def test_the_plan_says_so() -> None:
    plan = (ROOT / "docs/house.md").read_text()
    line = next(line for line in plan.splitlines() if line.startswith("core <"))
    assert tuple(tuple(floor.split(" | ")) for floor in line.split(" < ")) == FLOORS
    for room in {room_of(path) for path in files()} - {"cli", "run"} | {"conf"}:
        assert f"| `{room}` |" in plan, f"docs/house.md does not describe {room}"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("losses/x.py", "from ltplugins.methods import registry"),
        ("losses/x.py", "def f():\n    import ltplugins.data.datamodule"),
        ("core/x.py", "if TYPE_CHECKING:\n    from ltplugins.host import METHODS"),
        ("core/x.py", "from ltplugins import host"),
        ("data/sources/x.py", "from ...metrics import knn"),
        ("runs/x.py", "import importlib\nimportlib.import_module('ltplugins.stages.pretrain')"),
        ("eval/x.py", "from ltplugins.training import seeds"),
    ],
)
def test_the_walk_sees_an_import_that_points_up(path: str, text: str) -> None:
    assert len(upward(PACKAGE / path, text)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("methods/x.py", "from ltplugins.losses import gh\nimport ltplugins.core.errors"),
        ("data/sources/x.py", "from ltplugins.data.augment import schema\nfrom . import arrays"),
        ("stages/x.py", "import ltplugins\nfrom ltplugins import __version__"),
    ],
)
def test_the_walk_lets_others_be(path: str, text: str) -> None:
    assert upward(PACKAGE / path, text) == []


def test_no_file_has_scikit_learn_at_its_top() -> None:
    """It brings pandas along, a tenth of what a start takes; few starts come to use it."""
    for path in files():
        for node in ast.parse(path.read_text()).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "sklearn" for name in names), path
