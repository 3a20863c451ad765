# SPDX-License-Identifier: MIT
"""Stored losses of every method: ``python -m tests.kit.frozen NAME ...`` captures them anew.

Another number is another method: say why in the changelog. Without a name nothing is written, the
differences are shown.
"""

import json
import sys

from tests.kit.cases import names
from tests.kit.paths import ROOT
from tests.kit.two_steps import five_losses

PATH = ROOT / "tests/kit/frozen.json"


def stored() -> dict[str, list[float]]:
    """Five losses of each method."""
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def capture(chosen: list[str]) -> None:
    """Write the losses of the present code for some methods; the others keep theirs."""
    values = stored()
    values |= {name: [round(x, 9) for x in five_losses(name)] for name in chosen}
    lines = [f"  {json.dumps(name)}: {json.dumps(values[name])}" for name in names()]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def show() -> None:
    """The largest difference of each method from what is stored."""
    values = stored()
    for name in names():
        now, then = five_losses(name), values.get(name)
        worst = max(abs(a - b) for a, b in zip(now, then, strict=True)) if then else "not stored"
        print(f"{name:<20} {worst}")


if __name__ == "__main__":
    capture(sys.argv[1:]) if sys.argv[1:] else show()
