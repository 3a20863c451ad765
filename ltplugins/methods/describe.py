# SPDX-License-Identifier: MIT
"""What a method's options are, read from where they stand: types, ranges, defaults and comments."""

import ast
import dataclasses
import inspect
import io
import tokenize
import typing
from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf

from ltplugins.core.errors import unknown
from ltplugins.core.schema import MISSING, default_of, describe
from ltplugins.host.facts import BASES, packaged_bases
from ltplugins.methods.registry import METHODS, WRAPPERS, load_mixin, split_name


@dataclasses.dataclass(frozen=True)
class Option:
    """One key of a method's block.

    Attributes:
        key: its name.
        expected: type and range in words.
        default: its value where none is given; empty if one must be.
        packaged: what the packaged file sets instead; empty where it leaves the default.
        comment: that stands beside it in the source.
    """

    key: str
    expected: str
    default: str
    packaged: str
    comment: str


def parts_of(name: str) -> list[str]:
    """The wrappers, the method or the base that a name is made of, the outermost first.

    Raises:
        UserError: there is nothing of that name.
    """
    known = {*WRAPPERS, *METHODS, *(base for base, facts in BASES.items() if facts.title)}
    if name in known:
        return [name]
    wrappers, base = split_name(name)
    if not wrappers or base not in known or base in METHODS or base in WRAPPERS:
        raise unknown("method", name, known)
    return [*wrappers, base]


def block_of(name: str) -> str:
    """Where the options of a wrapper, method or base stand in a config."""
    return f"method_kwargs.{name}" if name in WRAPPERS else "method_kwargs"


def options_of(name: str) -> list[Option]:
    """The options of a wrapper, a method, or a base that the stand-in has; else none."""
    cls = _options_class(name)
    if cls is None:
        return []
    hints = typing.get_type_hints(cls, include_extras=True)
    comments = field_comments(cls)
    packaged = packaged_block(name)
    options = []
    for field in dataclasses.fields(cls):
        default = default_of(field)
        given = packaged.get(field.name, default)
        options.append(
            Option(
                key=field.name,
                expected=describe(hints[field.name]),
                default="" if default is MISSING else _text(default),
                packaged="" if given == default else _text(given),
                comment=comments.get(field.name, ""),
            )
        )
    return options


def field_comments(cls: type) -> dict[str, str]:
    """The comment on each field's lines, or on the lines just above it."""
    source = inspect.getsource(cls)
    comments: dict[int, str] = {}
    alone: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
            if token.line.lstrip().startswith("#"):
                alone.add(token.start[0])
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno
            while first - 1 in alone:
                first -= 1
            lines = range(first, (node.end_lineno or node.lineno) + 1)
            found[node.target.id] = " ".join(comments[n] for n in lines if n in comments)
    return found


def _options_class(name: str) -> Any:
    if name in WRAPPERS:
        return load_mixin(name).wrapper_config
    if name in METHODS:
        return load_mixin(name).method_config
    if name not in packaged_bases():
        return None  # of solo-learn alone, which has no types for them
    from ltplugins.host.builtin import METHOD_KWARGS

    return METHOD_KWARGS[name]


def packaged_block(name: str) -> dict[str, Any]:
    """The block as the packaged file has it, its interpolations as they are written."""
    text = files("ltplugins.conf").joinpath(f"method/{name}.yaml").read_text(encoding="utf-8")
    cfg = OmegaConf.create(text)
    block = OmegaConf.select(cfg, block_of(name))
    return {} if block is None else OmegaConf.to_container(block)  # type: ignore[return-value]


def _text(value: Any) -> str:
    """As YAML writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
