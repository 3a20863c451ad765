# SPDX-License-Identifier: MIT
"""``ltplugins methods``: a table of all; ``ltplugins methods gh``: one, with every option."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ltplugins.core.console import make_console
from ltplugins.host.facts import BASES, facts_of
from ltplugins.methods.describe import block_of, options_of, parts_of
from ltplugins.methods.registry import COMPOSED, METHODS, WRAPPERS, Entry, load_mixin


def methods(name: str | None = None) -> None:
    """Print the table of all methods, or what there is to know about one.

    Args:
        name: of a wrapper, a method, a base, or a composition such as ``gh_colt_simclr``.

    Raises:
        UserError: there is nothing of that name.
    """
    console = make_console()
    if name is None:
        _print_all(console)
        return
    for part in parts_of(name):
        _print_one(console, part)


def _print_all(console: Console) -> None:
    table = Table("name", "what it does", "labels", "needs", "paper", box=SIMPLE_HEAD)
    for name, entry in {**WRAPPERS, **METHODS}.items():
        needs = load_mixin(name).needs
        where = f"{entry.venue} {entry.year}"
        table.add_row(
            entry.usage, entry.summary, _yes(needs.labels), needs.describe(), where, style=None
        )
    table.add_section()
    for name, base in BASES.items():
        if base.packaged:
            table.add_row(name, base.summary, _yes(base.labels), "2 views", _arxiv(base.paper))
    console.print(table, soft_wrap=False)
    console.print(
        f"<base>: one of the last rows, or any other method of solo-learn that yields z. Names "
        f"compose: {', '.join(f'{c.outer}_{c.inner}_<base>' for c in COMPOSED)}.\n"
        f"A sampler that a method needs is set by method=NAME itself. "
        f"ltplugins methods NAME shows one with its options.",
        highlight=False,
        markup=False,
    )


def _print_one(console: Console, name: str) -> None:
    entry = WRAPPERS.get(name) or METHODS.get(name)
    lines = _lines_of_entry(entry) if entry else _lines_of_base(name)
    console.rule(lines[0], align="left")
    for line in lines[1:]:
        console.print(f"  {line}", highlight=False, markup=False)
    options = options_of(name)
    if not options:
        console.print("  Its options are solo-learn's.", highlight=False)
        return
    table = Table(block_of(name), "expected", "default", "", box=SIMPLE_HEAD)
    for option in options:
        default = option.default or "none"
        if option.packaged:
            default = (
                f"{default}; {option.packaged} in its file"
                if option.default
                else (f"{option.packaged}, by its file")
            )
        table.add_row(option.key, option.expected, default, option.comment)
    console.print(table, markup=False, soft_wrap=False)


def _lines_of_entry(entry: Entry) -> list[str]:
    needs = load_mixin(entry.name).needs
    lines = [
        f"{entry.usage}: {entry.title}, {entry.venue} {entry.year}",
        entry.summary,
        entry.formula,
        f"paper   {entry.paper}",
        f"code    {entry.code or 'no official code was found'}",
        f"labels  {_yes(needs.labels)}",
        f"needs   {needs.describe()}",
    ]
    if entry.kind == "wrapper":
        bases = [name for name, base in BASES.items() if base.yields_z and entry.takes(base)]
        lines.append(f"over    {', '.join(bases)}")
    return lines


def _lines_of_base(name: str) -> list[str]:
    base = facts_of(name)
    lines = [f"{name}: {base.title}", f"paper   {base.paper}", f"labels  {_yes(base.labels)}"]
    if not base.packaged:
        lines.append("needs   solo-learn as host")
    wrappers = [w.usage for w in WRAPPERS.values() if base.yields_z and w.takes(base)]
    lines.append(f"under   {', '.join(wrappers) or 'no wrapper: it yields no embedding'}")
    return [lines[0], *([base.summary] if base.summary else []), *lines[1:]]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _arxiv(paper: str) -> str:
    return f"arXiv {paper.rpartition('/')[2]}"
