# SPDX-License-Identifier: MIT
"""The words of ``ltplugins zoo``: its parsers, and what each of them calls. Light to import."""

import argparse
from pathlib import Path
from typing import Any

from ltplugins.core.files import expanded


def add_parsers(commands: Any) -> None:
    """Add ``zoo`` to the commands of ``ltplugins``."""
    zoo = commands.add_parser("zoo", help="small backbones that say what they are: list, get, add")
    parts = zoo.add_subparsers(dest="part", metavar="PART", required=True)

    listed = parts.add_parser("list", help="all entries, one a line")
    listed.add_argument("--refresh", action="store_true", help="ask the zoo anew")

    info = parts.add_parser("info", help="what an entry says of itself")
    info.add_argument("name", type=_name, metavar="NAME")

    get = parts.add_parser("get", help="fetch entries, verified")
    get.add_argument("names", metavar="NAME", type=_name, nargs="*", help="without any: all")
    get.add_argument("--to", type=_path, help="copy them into this folder")

    verify = parts.add_parser("verify", help="hashes, stored features, signatures")
    verify.add_argument("names", metavar="NAME", type=_name, nargs="*", help="without any: all")
    verify.add_argument("--key", type=_path, help="public key (PEM) of the zoo's signatures")
    _add_writers(parts)


def _add_writers(parts: Any) -> None:
    """The parts that write into a zoo's folder, or serve it."""
    add = parts.add_parser("add", help="an entry of one run, or of several of one experiment")
    add.add_argument("runs", metavar="RUN", type=_path, nargs="+", help="folders of finished runs")
    add.add_argument(
        "--name", type=_name, help="of the entry: without it method, data set and network"
    )
    add.add_argument("--weights", type=_path, help="the run whose weights are shipped (the first)")
    add.add_argument("--license", default="mit", help="of the weights, by its SPDX name (mit)")
    add.add_argument("--url", action="append", default=[], help="where it lies as well")
    add.add_argument("--replace", action="store_true", help="an entry of this name")
    add.add_argument("--half", action="store_true", help="weights in float16, measured as such")

    card = parts.add_parser("card", help="write cards, figures, index and page anew")
    card.add_argument("names", metavar="NAME", type=_name, nargs="*", help="without any: all")

    sign = parts.add_parser("sign", help="sign the entries and the index (extra sign)")
    sign.add_argument("--key", type=_path, required=True, help="private key (PEM, elliptic curve)")

    serve = parts.add_parser("serve", help="the zoo over HTTP, for mirrors")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8765, help="0: a free one (8765)")
    for part in (add, card, sign, serve):
        part.add_argument("--zoo", type=_path, help="the zoo's folder (that of LTPLUGINS_ZOO)")


def run_zoo(options: argparse.Namespace) -> None:
    """Do what was asked for.

    Raises:
        UserError: see the parts.
    """
    if options.part in ("list", "get"):
        from ltplugins.stages.zoo import copies

        if options.part == "list":
            copies.show_list(options.refresh)
        else:
            copies.show_get(options.names, options.to)
        return
    if options.part == "info":
        from ltplugins.stages.zoo.info import show_info

        show_info(options.name)
        return
    if options.part == "verify":
        from ltplugins.stages.zoo.verify import show_verify

        show_verify(options.names, options.key)
        return
    _write(options, options.zoo or _own_folder())


def _write(options: argparse.Namespace, zoo: Path) -> None:
    from ltplugins.core.console import make_console

    if options.part == "serve":
        from ltplugins.stages.zoo.serve import serve

        serve(zoo, options.host, options.port)
        return
    from ltplugins.stages.zoo import add

    if options.part == "add":
        naming = add.Naming(
            options.name, options.weights, options.license, tuple(options.url), options.replace,
            options.half,
        )  # fmt: skip
        told = f"written: {add.add(options.runs, zoo, naming)}; {zoo / 'README.md'} has it"
    elif options.part == "card":
        count = len(add.refresh(zoo, options.names).entries)
        told = f"written: index, page and cards of {zoo} ({count} in all)"
    else:
        from ltplugins.stages.zoo.sign import sign_zoo

        told = f"signed: {', '.join(str(path) for path in sign_zoo(zoo, options.key))}"
    make_console().print(told, highlight=False, markup=False)


def _own_folder() -> Path:
    """The folder that ``LTPLUGINS_ZOO`` names.

    Raises:
        UserError: it names an address.
    """
    from ltplugins.catalogue.root import FolderRoot, find_root
    from ltplugins.core.errors import UserError

    root = find_root()
    if not isinstance(root, FolderRoot):
        raise UserError(
            f"LTPLUGINS_ZOO is {root.label}: expected a folder, which can be written. Give --zoo."
        )
    return root.path


def _name(text: str) -> str:
    return text.removeprefix("zoo://")  # as an entry is called elsewhere


def _path(text: str) -> Path:
    if not text:  # of a shell's variable that is not set; no place would be this folder
        raise argparse.ArgumentTypeError("expected a path, got none; '.' is this folder")
    return expanded(text)
