# SPDX-License-Identifier: MIT
"""``python scripts/oldest.py FOLDER``: an environment of the oldest versions that we allow.

Each requirement of pyproject.toml that has a lower bound is installed at that bound, what it needs
itself at the newest that fits. ``make oldest`` makes it and runs the fast tests in it.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Of the extra ``dev``, what runs the tests; the rest are tools, or for one engine.
RUNNERS = ("pytest", "threadpoolctl")


def requirements() -> list[str]:
    """The package's own, and what runs its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dev = project["optional-dependencies"]["dev"]
    return [*project["dependencies"], *(line for line in dev if line.startswith(RUNNERS))]


def main(folder: Path) -> None:
    """Make the environment; the packages of uv are in one of its own beside it."""
    for name in (folder, folder / "uv"):
        subprocess.run([sys.executable, "-m", "venv", "--clear", name], check=True)
    pip = [folder / "uv/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    subprocess.run([*pip, "uv"], check=True)
    uv = folder / "uv/bin/uv"
    wanted, pinned = folder / "wanted.in", folder / "oldest.txt"
    wanted.write_text("\n".join(requirements()) + "\n")
    compile_ = [uv, "pip", "compile", "--quiet", "--resolution", "lowest-direct"]
    subprocess.run([*compile_, wanted, "--output-file", pinned], check=True)
    python = ["--python", folder / "bin/python"]
    subprocess.run([uv, "pip", "install", *python, "--requirement", pinned], check=True)
    subprocess.run([uv, "pip", "install", *python, "--no-deps", "--editable", ROOT], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
