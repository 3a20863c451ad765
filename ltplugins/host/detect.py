# SPDX-License-Identifier: MIT
"""Which host serves: solo-learn where its 1.0.6 contract is met, our stand-in elsewhere.

The check looks at structure, not at a version number: solo-learn's current code is used from a
source tree as often as from an install, and other packages are called ``solo`` too.
"""

import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import ltplugins
from ltplugins.core.errors import UserError, unknown

logger = logging.getLogger(__name__)

ENV = "LTPLUGINS_HOST"
INSTALL_HINT = "put the source tree of solo-learn 1.0.6 on PYTHONPATH (README, the solo-learn way)"
# What our wrappers and methods call or override, by class.
CONTRACT = {
    "BaseMethod": (
        "base_training_step",
        "add_and_assert_specific_cfg",
        "_base_shared_step",
        "multicrop_forward",
        "learnable_params",
        "configure_optimizers",
    ),
    "BaseMomentumMethod": ("momentum_forward", "momentum_pairs"),
}


@dataclass(frozen=True)
class HostInfo:
    """The host in use: its name ("solo" or "builtin"), its version and why it was taken."""

    name: str
    version: str
    reason: str = ""

    @property
    def label(self) -> str:
        """Name and version, as stored with every run."""
        return f"{'solo-learn' if self.name == 'solo' else 'the built-in stand-in'} {self.version}"

    def describe(self) -> str:
        """One line to show at the start of a run."""
        return f"host: {self.label}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class SoloFinding:
    """What an import of ``solo`` showed: ``problem`` is empty when it can serve as the host."""

    found: bool
    version: str = ""
    location: str = ""
    problem: str = ""

    @property
    def usable(self) -> bool:
        return self.found and not self.problem

    def describe(self) -> str:
        if not self.found:
            return "no package named 'solo' was found"
        return f"'solo' {self.version} at {self.location}: {self.problem or 'meets the contract'}"


def find_solo() -> SoloFinding:
    """Import ``solo`` if there is one and hold it against the 1.0.6 contract. Never raises."""
    spec = importlib.util.find_spec("solo")
    if spec is None:
        return SoloFinding(found=False)
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
    location = Path(places[0]) if places else Path("solo")
    folder = location.parent if location.suffix == ".py" else location
    try:
        with warnings.catch_warnings():
            # solo-learn's own imports warn a dozen times about old torch and timm names.
            warnings.simplefilter("ignore")
            problem = _contract_problem(
                importlib.import_module("solo.methods"),
                importlib.import_module("solo.methods.base"),
            )
    except (Exception, SystemExit) as error:  # a broken host must not take us down with it
        first_line = (str(error).splitlines() or [""])[0]
        problem = f"importing it raised {type(error).__name__}: {first_line}"
    version = _installed_version(folder) or ("unknown version" if problem else "1.0.6 (source)")
    return SoloFinding(True, version, str(folder), problem)


def _contract_problem(methods: ModuleType, base: ModuleType) -> str:
    """Return what is missing from the 1.0.6 contract, or an empty string."""
    if not isinstance(getattr(methods, "METHODS", None), dict):
        return "solo.methods has no METHODS dict"
    for class_name, names in CONTRACT.items():
        cls = getattr(base, class_name, None)
        if cls is None:
            return f"solo.methods.base has no {class_name}"
        for name in names:
            if not hasattr(cls, name):
                return f"{class_name} has no {name}"
        for function in (cls.__init__, cls.add_and_assert_specific_cfg):
            if _parameters(function) != ["cfg"]:
                return (
                    f"{class_name}.{function.__name__} takes ({', '.join(_parameters(function))}),"
                    " the 1.0.6 contract is (cfg)"
                )
    return ""


def _parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def _installed_version(folder: Path) -> str:
    """Version of the installed distribution if it is the one that was imported, else empty."""
    try:
        dist = importlib.metadata.distribution("solo-learn")
    except importlib.metadata.PackageNotFoundError:
        return ""
    same = Path(str(dist.locate_file("solo"))).resolve() == folder.resolve()
    return dist.version if same else ""


def choose(forced: str | None) -> HostInfo:
    """Decide on the host.

    Args:
        forced: the value of ``LTPLUGINS_HOST``; empty or None chooses by what is importable.

    Raises:
        UserError: an unknown value, or ``solo`` was asked for and cannot serve.
    """
    if forced and forced not in ("solo", "builtin"):
        raise unknown(f"value of {ENV}", forced, ("solo", "builtin"))
    if forced == "builtin":
        return HostInfo("builtin", ltplugins.__version__, f"{ENV}=builtin")
    finding = find_solo()
    if finding.usable:
        return HostInfo("solo", finding.version, f"{ENV}=solo" if forced else "")
    if forced == "solo":
        raise UserError(
            f"{ENV}=solo, but {finding.describe()}. Expected solo-learn 1.0.6: {INSTALL_HINT}, "
            f"or unset {ENV} to use the built-in stand-in."
        )
    if finding.found:
        logger.warning(
            "%s. Using the built-in stand-in instead. To use solo-learn, %s; to silence this, "
            "set %s=builtin.",
            finding.describe(),
            INSTALL_HINT,
            ENV,
        )
        return HostInfo("builtin", ltplugins.__version__, f"solo {finding.version} cannot serve")
    return HostInfo("builtin", ltplugins.__version__, "solo-learn is not installed")
