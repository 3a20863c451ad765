# SPDX-License-Identifier: MIT
"""Which host is taken, and what is said about one that cannot serve."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ltplugins
import ltplugins.host
from ltplugins.core.errors import UserError
from ltplugins.host import detect
from tests.kit import forked

GOOD = """
class BaseMethod:
    def __init__(self, cfg): ...
    @staticmethod
    def add_and_assert_specific_cfg(cfg): return cfg
    def base_training_step(self, X, targets): ...
    def _base_shared_step(self, X, targets): ...
    def multicrop_forward(self, X): ...
    learnable_params = property(lambda self: [])
    def configure_optimizers(self): ...


class BaseMomentumMethod(BaseMethod):
    def __init__(self, cfg): ...
    def momentum_forward(self, X): ...
    momentum_pairs = property(lambda self: [])
"""
# The release on PyPI: other arguments, no config object.
OLD = GOOD.replace("def __init__(self, cfg)", "def __init__(self, encoder, num_classes)")


@pytest.fixture
def no_solo(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A Python without ``solo``: off the path and out of ``sys.modules`` for the test's length."""
    kept = {name: m for name, m in sys.modules.items() if name.split(".")[0] == "solo"}
    for name in kept:
        del sys.modules[name]
    path = [p for p in sys.path if not (Path(p or ".") / "solo").is_dir()]
    monkeypatch.setattr(sys, "path", path)
    yield monkeypatch
    for name in [name for name in sys.modules if name.split(".")[0] == "solo"]:
        del sys.modules[name]
    sys.modules.update(kept)


@pytest.fixture
def fake_solo(tmp_path: Path, no_solo: pytest.MonkeyPatch) -> Iterator[Path]:
    package = tmp_path / "solo"
    (package / "methods").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    methods = "from solo.methods.base import BaseMethod\nMETHODS = {'simclr': BaseMethod}\n"
    (package / "methods" / "__init__.py").write_text(methods)
    (package / "methods" / "base.py").write_text(GOOD)
    no_solo.syspath_prepend(str(tmp_path))
    yield package


def installed(folder: Path, version: str) -> None:
    info = folder / f"solo_learn-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: solo-learn\nVersion: {version}\n")


def test_none(no_solo: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    info = detect.choose(None)
    assert (info.name, info.version) == ("builtin", ltplugins.__version__)
    assert "built-in stand-in" in info.describe()
    assert "solo-learn is not installed" in info.describe()
    assert not caplog.records
    with pytest.raises(UserError, match="LTPLUGINS_HOST=solo, but no package named 'solo' was fou"):
        detect.choose("solo")


def test_good_source_tree(fake_solo: Path) -> None:
    info = detect.choose(None)
    assert info.describe() == "host: solo-learn 1.0.6 (source)"
    assert detect.choose("solo").name == "solo"
    assert detect.choose("builtin").name == "builtin"


def test_installed_version_is_named(fake_solo: Path) -> None:
    installed(fake_solo.parent, "1.0.7")
    assert detect.choose(None).version == "1.0.7"


def test_version_of_another_install_is_not_taken(fake_solo: Path, tmp_path: Path) -> None:
    """solo-learn 1.0.2 is installed, but the source tree before it on the path is what imports."""
    elsewhere = tmp_path / "site"
    elsewhere.mkdir()
    installed(elsewhere, "1.0.2")
    sys.path.append(str(elsewhere))  # the fixture restores sys.path
    assert detect.choose(None).version == "1.0.6 (source)"


def test_old_release(fake_solo: Path, caplog: pytest.LogCaptureFixture) -> None:
    (fake_solo / "methods" / "base.py").write_text(OLD)
    installed(fake_solo.parent, "1.0.2")
    assert detect.choose(None).name == "builtin"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    text = record.getMessage()
    assert "'solo' 1.0.2 at" in text
    assert "BaseMethod.__init__ takes (encoder, num_classes), the 1.0.6 contract is (cfg)" in text
    assert "built-in stand-in" in text
    with pytest.raises(
        UserError, match=r"LTPLUGINS_HOST=solo, but 'solo' 1.0.2 .*Expected solo-le"
    ):
        detect.choose("solo")


def test_one_that_raises(fake_solo: Path, caplog: pytest.LogCaptureFixture) -> None:
    (fake_solo / "methods" / "base.py").write_text("raise RuntimeError('no GPU here')\n")
    assert detect.choose(None).name == "builtin"
    (record,) = caplog.records
    assert "importing it raised RuntimeError: no GPU here" in record.getMessage()
    (fake_solo / "methods" / "base.py").write_text("import sys; sys.exit('bye')\n")
    assert "raised SystemExit: bye" in detect.find_solo().problem


def test_another_package_called_solo(fake_solo: Path) -> None:
    (fake_solo / "methods" / "__init__.py").unlink()
    (fake_solo / "methods" / "base.py").unlink()
    (fake_solo / "methods").rmdir()
    finding = detect.find_solo()
    assert not finding.usable
    assert "raised ModuleNotFoundError: No module named 'solo.methods'" in finding.problem


@pytest.mark.parametrize("missing", ["base_training_step", "momentum_pairs"])
def test_a_missing_part_is_named(fake_solo: Path, missing: str) -> None:
    (fake_solo / "methods" / "base.py").write_text(GOOD.replace(missing, "something_else"))
    assert f"has no {missing}" in detect.find_solo().problem


def test_unknown_choice() -> None:
    with pytest.raises(
        UserError, match=r"unknown value of LTPLUGINS_HOST 'sola'. Did you mean 'solo"
    ):
        detect.choose("sola")


def test_public_names_in_a_fresh_process() -> None:
    code = (
        "from ltplugins.host import BaseMethod, BaseMomentumMethod, METHODS, HOST;"
        "assert issubclass(METHODS['byol'], BaseMomentumMethod);"
        "assert issubclass(BaseMomentumMethod, BaseMethod);"
        "assert BaseMethod.__module__.startswith('ltplugins.host.builtin');"
        "print(HOST.describe())"
    )
    env = {**os.environ, "LTPLUGINS_HOST": "builtin"}
    out = forked.run([sys.executable, "-c", code], env=env)
    assert out.returncode == 0, out.stderr
    assert "host: the built-in stand-in" in out.stdout


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'METHOD'"):
        _ = ltplugins.host.METHOD  # type: ignore[attr-defined]
