# SPDX-License-Identifier: MIT
"""docs/official.md from the table: ``python -m tests.kit.official.page`` writes it."""

from typing import Any

from tests.kit.official import PAGE, Script, names, script

HEAD = """\
# Official numbers

Which official setting each file under `scripts/pretrain` is, and where it differs. The official
numbers were read in the code that is named, at that commit, and stand with their place in
`tests/kit/official/settings.yaml`. Ours are read off the model, optimizer and schedule that are
built from the file. `tests/methods/test_official.py` compares the two and holds each file's head to
what differs, and this page to both. Nothing here says that a result was reproduced: no run of ours
stands behind these files.

Every file takes the rate of 256 images (`optimizer.lr`); the rates here are those of its batch.
Further differences within a method are listed in the heads of `ltplugins/methods` and
`ltplugins/losses`.

"""


def page() -> str:
    """The text of docs/official.md."""
    scripts = [script(name) for name in names()]
    official = [s for s in scripts if s.setting]
    none = [s.name for s in scripts if not s.setting]
    return (
        HEAD
        + _overview(official)
        + "\n"
        + "\n".join(_section(s) for s in official)
        + "\n## Without an official setting\n\n"
        + "\n".join(f"- `{name}.yaml`" for name in none)
        + "\n"
    )


def _overview(scripts: list[Script]) -> str:
    lines = ["| file | official code | differs in |", "|---|---|---|"]
    for found in scripts:
        assert found.setting
        words = ", ".join(dict.fromkeys(d.words for d in found.differences))
        where = f"[{found.setting.repository}](https://github.com/{found.setting.repository})"
        lines.append(f"| [{found.name}](#{_anchor(found.name)}) | {where} | {words} |")
    return "\n".join(lines) + "\n"


def _section(found: Script) -> str:
    setting = found.setting
    assert setting
    equal = "; ".join(f"{k} {_text(v)}" for k, v in found.equal.items())
    lines = [
        f"## {found.name}",
        "",
        f"{setting.repository} at {setting.commit}: `{setting.command}`",
        "",
        f"Read in: {setting.read}.",
        "",
        f"Equal: {equal}.",
        "",
    ]
    if found.differences:
        lines += ["| number | official | here | why |", "|---|---|---|---|"]
        lines += [
            f"| {d.name} | {_text(d.official)} | {_text(d.ours)} | {d.reason} |"
            for d in found.differences
        ]
        lines.append("")
    return "\n".join(lines)


def _text(value: Any) -> str:
    """A number, a list of them, or rates by epoch, short."""
    if isinstance(value, dict):
        return ", ".join(f"{_text(rate)} after {epoch} epochs" for epoch, rate in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _anchor(name: str) -> str:
    """As GitHub and MkDocs make it of a heading."""
    return name.replace("/", "").lower()


if __name__ == "__main__":
    PAGE.write_text(page())
