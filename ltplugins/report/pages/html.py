# SPDX-License-Identifier: MIT
"""The frame of the HTML report: one stylesheet, light and dark, nothing from outside."""

from collections.abc import Mapping, Sequence
from html import escape

CSS = """
:root { color-scheme: light dark; --ink: #1f2933; --muted: #5f6b7a; --rule: #d5dbe3;
  --paper: #fdfdfc; --shade: #f2f4f6; --accent: #0072b2;
  --font: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    "DejaVu Sans", Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --muted: #9aa5b1; --rule: #343c46;
  --paper: #14181d; --shade: #1c2229; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--font); }
main { max-width: 1080px; margin: 0 auto; padding: 48px 20px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.015em; }
h2 { font-size: 20px; line-height: 1.3; margin: 56px 0 4px; letter-spacing: -.01em; }
p { margin: 6px 0 12px; max-width: 76ch; }
.lead, .note, caption, figcaption { color: var(--muted); }
.note, figcaption { font-size: 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
table.results { margin: 20px 0 8px; min-width: 640px; }
table.results th, table.results td { padding: 7px 12px; text-align: right; white-space: nowrap; }
table.results th:first-child, table.results td:first-child { text-align: left; padding-left: 0; }
table.results td:last-child, table.results th:last-child { padding-right: 0; }
thead th { font-size: 13px; font-weight: 600; color: var(--muted);
  border-bottom: 1px solid var(--ink); }
table.many th { white-space: normal !important; vertical-align: bottom; }
tbody td { border-bottom: 1px solid var(--rule); }
tbody th.protocol { padding: 26px 0 6px !important; white-space: normal !important;
  border-bottom: 1px solid var(--rule); font-weight: 400; color: var(--muted); font-size: 14px; }
tbody th.protocol b { display: block; color: var(--ink); font: 600 15px/1.4 var(--mono); }
tr.difference td { color: var(--muted); font-style: italic; }
td.best { font-weight: 700; }
td .pm { color: var(--muted); font-size: 13px; font-weight: 400; padding-left: 3px; }
.chip { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 9px; }
.runs { color: var(--muted); font-size: 13px; padding-left: 6px; }
figure { margin: 14px 0 0; }
figure svg { display: block; width: 100%; min-width: 680px; height: auto; }
figure svg text { font-family: var(--font); }
figure svg * { stroke-linejoin: round; }
figcaption { margin-top: 10px; max-width: 84ch; }
.print { font-size: 14px; line-height: 1.5; }
.print th { text-align: left; padding: 5px 18px 5px 0; }
.print td { padding: 5px 18px 5px 0; vertical-align: top; overflow-wrap: anywhere; }
.print td:first-child { color: var(--muted); white-space: nowrap; width: 1%; }
details { border-bottom: 1px solid var(--rule); padding: 8px 0; }
summary { cursor: pointer; }
pre { background: var(--shade); padding: 14px 16px; border-radius: 4px; overflow-x: auto;
  font: 13px/1.5 var(--mono); }
code { font: .92em var(--mono); }
@media print { main { max-width: none; padding: 0; } h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; } }
"""


def page(title: str, body: str) -> str:
    """Return a whole HTML document; ``body`` is HTML already, ``title`` is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def figure(svg: str, caption: str) -> str:
    """Return a figure; its caption also names the picture to a screen reader."""
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return (
        f'<figure><div class="scroll">{svg}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def definitions(rows: list[tuple[str, str]]) -> str:
    """Return the small print: a table of names and texts."""
    lines = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in rows)
    return f'<table class="print"><tbody>{lines}</tbody></table>'


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return lines of texts that have the same columns, the first line's."""
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row.values())}</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table class="print"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
