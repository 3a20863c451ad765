# SPDX-License-Identifier: MIT
"""What is declared is imported, and what is imported is declared, for the package and around it."""

import ast
import os
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

from tests.kit.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Where a distribution's name is not found from its module: it is an extra that may be missing.
MODULES = {
    "nvidia": "nvidia-dali",
    "solo": "solo-learn",
    "umap": "umap-learn",
    "huggingface_hub": "huggingface-hub",
    "markdown_it": "markdown-it-py",
}
# Imported without being declared: with the reason.
UNDECLARED = {"triton": "torch's builds for GPUs under Linux require it; others do without"}
# Declared without being imported: with the reason.
NOT_IMPORTED = {
    "tensorboard": "Lightning's logger imports it",
    "wandb": "Lightning's logger imports it",
    "mlflow": "Lightning's logger imports it",
    "hydra-joblib-launcher": "a plugin that Hydra finds by itself",
    "hydra-submitit-launcher": "a plugin that Hydra finds by itself",
    "onnxscript": "torch's exporter imports it",
    "pyopenssl": "model-signing imports it without declaring it",
    "pytest-xdist": "a plugin of pytest, for --numprocesses",
    "ruff": "called by make lint",
    "mypy": "called by make lint",
    "codespell": "called by make lint",
    "pre-commit": "called by git",
}
# Ours: the top level, and the scripts of a folder, which import each other by their bare names.
OWN = {path.name for path in ROOT.iterdir()} | {p.stem for p in (ROOT / "scripts").rglob("*.py")}


def name_of(requirement: str) -> str:
    """The normalised name of a requirement; both builds of DALI are one."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    name = re.sub(r"[-_.]+", "-", found[0]).lower()
    return "nvidia-dali" if name.startswith("nvidia-dali-cuda") else name


def names_of(requirements: list[str]) -> set[str]:
    return {name_of(requirement) for requirement in requirements}


def modules_in(text: str) -> set[str]:
    """Top-level names of what a source file imports, wherever it does so."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def imported_by(folder: str) -> set[str]:
    """Names of the distributions that a folder's files import."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    modules = set().union(*(modules_in(path.read_text()) for path in paths))
    return distributions(modules - OWN - set(sys.stdlib_module_names))


def distributions(modules: set[str]) -> set[str]:
    known = packages_distributions()
    return {name_of(MODULES.get(m) or known.get(m, [m])[0]) for m in modules}


CORE = names_of(PROJECT["dependencies"])
OPTIONAL = set().union(*(names_of(e) for extra, e in EXTRAS.items() if extra != "dev"))
DEV = names_of(EXTRAS["dev"])


def test_every_import_of_the_package_is_declared() -> None:
    missing = imported_by("ltplugins") - CORE - OPTIONAL - set(UNDECLARED)
    assert not missing, f"pyproject.toml does not declare {', '.join(sorted(missing))}"


@pytest.mark.parametrize("folder", ["scripts", "tests"])
def test_every_import_around_the_package_is_declared(folder: str) -> None:
    missing = imported_by(folder) - CORE - OPTIONAL - DEV
    assert not missing, f"{folder} imports {', '.join(sorted(missing))}, which nothing declares"


def test_every_dependency_of_the_package_is_imported_by_it() -> None:
    idle = (CORE | OPTIONAL) - imported_by("ltplugins") - set(NOT_IMPORTED)
    idle -= {"solo-learn"}  # the host, which ltplugins.host.detect finds by its name
    assert not idle, f"the package never imports {', '.join(sorted(idle))}"


def test_every_dependency_of_development_is_used() -> None:
    used = imported_by("tests") | imported_by("scripts") | imported_by("ltplugins")
    idle = DEV - used - set(NOT_IMPORTED)
    assert not idle, f"nothing uses {', '.join(sorted(idle))}"


def test_the_tables_hold_nothing_that_is_gone() -> None:
    assert set(NOT_IMPORTED) <= CORE | OPTIONAL | DEV
    everything = imported_by("ltplugins") | imported_by("tests") | imported_by("scripts")
    assert set(UNDECLARED) <= everything
    assert not everything & set(NOT_IMPORTED)


def test_the_walk_sees_every_form_of_import() -> None:
    text = "import a.b\nfrom c.d import e\nfrom . import f\ndef g():\n    import h as i"
    assert modules_in(text) == {"a", "c", "h"}
    assert name_of("nvidia-dali-cuda130>=2; sys_platform == 'linux'") == "nvidia-dali"
    assert distributions({"PIL", "sklearn"}) == {"pillow", "scikit-learn"}


@pytest.mark.xdist_group("together")
def test_a_group_of_tests_stays_with_one_worker(request: pytest.FixtureRequest) -> None:
    """A pytest that pytest-xdist does not fit drops the group's name without a word."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process runs them all")
    assert request.node.nodeid.endswith("@together")
