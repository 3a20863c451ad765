# SPDX-License-Identifier: MIT
"""The frame of the HTML report: one stylesheet, light and dark, nothing from outside."""

from collections.abc import Mapping, Sequence
from html import escape

from ltplugins.report.cells import METRICS
from ltplugins.report.plates import Key
from ltplugins.report.style import THEME

CSS = """
:root { color-scheme: light dark; --ink: #1f2933; --muted: #5f6b7a; --rule: #d5dbe3;
  --paper: #fdfdfc; --shade: #f2f4f6; --accent: #0072b2;
  --font: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    "DejaVu Sans", Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --muted: #9aa5b1;
  --rule: #343c46; --paper: #14181d; --shade: #1c2229; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--font); }
main { max-width: 1080px; margin: 0 auto; padding: 48px 20px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.015em; }
h2 { font-size: 20px; line-height: 1.3; margin: 56px 0 4px; letter-spacing: -.01em; }
p { margin: 6px 0 12px; max-width: 76ch; }
.lead, .note, caption, figcaption { color: var(--muted); }
.note, figcaption { font-size: 14px; }
a { color: var(--accent); }
nav { margin: 20px 0 0; } nav ul { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0;
  padding: 0; list-style: none; }
nav a { display: inline-block; padding: 4px 0; }
h3 { font: 600 16px/1.4 var(--mono); margin: 26px 0 2px; overflow-wrap: anywhere; }
dl.answer { margin: 10px 0 0; max-width: 84ch; }
dl.answer dt { font-weight: 700; margin-top: 10px; } dl.answer dd { margin: 0; }
.scroll { overflow: auto; max-width: 100%; max-height: 88vh; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: 14px; padding: 4px 0 8px; }
caption > span, th.protocol > * { display: block; max-width: calc(100vw - 28px);
  position: sticky; left: 0; }
table.results, table.sorted { width: 100%; margin: 4px 0 8px; }
table.results th, table.results td { padding: 7px 12px; text-align: right; white-space: nowrap; }
table.results th[scope=row], table.results th:first-child { text-align: left; padding-left: 0;
  position: sticky; left: 0; background: var(--paper); z-index: 1; font-weight: 400;
  min-width: 104px; max-width: 240px; white-space: normal; overflow-wrap: break-word; }
thead th { font-size: 13px; font-weight: 600; color: var(--muted); background: var(--paper);
  position: sticky; top: 0; z-index: 2; box-shadow: inset 0 -1px 0 var(--ink); }
table.results thead th:first-child { z-index: 3; font-weight: 600; }
tbody td, tbody th { border-bottom: 1px solid var(--rule); vertical-align: top; }
table.many th { white-space: normal !important; vertical-align: bottom; }
tbody th.protocol { padding: 26px 0 6px !important; white-space: normal !important;
  border-bottom: 1px solid var(--rule); font-weight: 400; color: var(--muted); font-size: 14px; }
tbody th.protocol b { display: block; color: var(--ink); font: 600 15px/1.4 var(--mono); }
td.best b { font-weight: 700; } td b { font-weight: 400; }
td .pm, .delta, .runs { color: var(--muted); font-size: 13px; font-weight: 400; }
td .pm { padding-left: 3px; } .delta, .runs { display: block; } .delta { font-style: italic; }
.sort > table, .sort > .scroll > table { display: none; }
.sort fieldset { border: 0; margin: 0; padding: 0; font-size: 14px; }
.sort legend { float: left; padding: 6px 10px 6px 0; color: var(--muted); }
.sort label { display: inline-block; padding: 6px 12px 6px 0; white-space: nowrap; }
.sort input { accent-color: var(--accent); vertical-align: -1px; }
.print { width: 100%; }
figure { margin: 14px 0 0; }
.panels { display: grid; gap: 18px 22px; }
.panels > div { min-width: 0; } .panels h3 { font: 600 14px/1.4 var(--font); margin: 0 0 2px; }
.panels > div.scroll > svg { min-width: 640px; }
.panels svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: var(--font); }
figure svg * { stroke-linejoin: round; }
ul.key { display: flex; flex-wrap: wrap; gap: 2px 18px; list-style: none; margin: 4px 0 10px;
  padding: 0; font-size: 14px; }
ul.key svg { width: 18px; height: 12px; margin-right: 5px; vertical-align: -1px; }
svg.defs { position: absolute; }
svg.thumb { width: 44px; height: 44px; margin: 2px; image-rendering: pixelated;
  vertical-align: middle; }
svg.thumb.off { outline: 2px dashed #d55e00; outline-offset: -1px; }
ul.cards, ul.hoods, ul.alone { list-style: none; margin: 12px 0; padding: 0; display: grid;
  gap: 18px 20px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 158px), 1fr)); }
ul.hoods { grid-template-columns: repeat(auto-fill, minmax(min(100%, 262px), 1fr)); }
ul.alone { grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
ul.cards li, ul.hoods li, ul.alone li { border-top: 1px solid var(--rule); padding-top: 8px;
  min-width: 0; overflow-wrap: anywhere; break-inside: avoid; }
ul.cards small, ul.hoods small, ul.alone small { display: block; color: var(--muted);
  font-size: 13px; } ul.cards small b { color: var(--ink); }
.query { display: flex; gap: 8px; align-items: center; margin-bottom: 4px; }
.pt { cursor: pointer; } .pt:focus { outline: none; } .pt circle { fill: transparent; }
.pt .up { visibility: hidden; pointer-events: none; image-rendering: pixelated; }
.pt:hover .up, .pt:focus .up { visibility: visible; }
.pt:hover circle, .pt:focus circle { stroke: var(--ink); stroke-width: 1.4; }
.pt rect { fill: var(--paper); stroke: var(--rule); } .pt text { font-size: 8.5px;
  text-anchor: middle; fill: var(--ink); }
.strip { display: flex; flex-wrap: wrap; gap: 10px 16px; margin: 8px 0; }
.strip img { display: block; image-rendering: pixelated; }
figcaption { margin-top: 10px; max-width: 84ch; }
.print { font-size: 14px; line-height: 1.5; }
.print td { padding: 5px 18px 5px 0; vertical-align: top; overflow-wrap: anywhere; }
.print th { text-align: left; font-weight: 400; padding: 5px 18px 5px 0; vertical-align: top;
  color: var(--muted); white-space: nowrap; width: 1%; }
details { border-bottom: 1px solid var(--rule); padding: 8px 0; }
summary { cursor: pointer; }
pre { background: var(--shade); padding: 14px 16px; border-radius: 4px; overflow-x: auto;
  font: 13px/1.5 var(--mono); }
code { font: .92em var(--mono); }
@media (max-width: 600px) { main { padding: 24px 14px 60px; } h2 { margin-top: 40px; }
  table.results th, table.results td { padding: 7px 8px; }
  table.results th[scope=row], table.results th:first-child { max-width: 128px; font-size: 14px; }
  .print td, .print th { display: block; width: auto !important; padding: 2px 0; }
  .print thead { display: none; } .print td[data-head]:first-child { font-weight: 600; }
  .print td[data-head]:not(:first-child)::before { content: attr(data-head) ": ";
    color: var(--muted); } }
@media print { main { max-width: none; padding: 0; } h2, h3 { break-after: avoid; }
  nav, .sort fieldset { display: none; } .scroll { max-height: none; }
  figure > .panels > div, tr { break-inside: avoid; } ul.key { break-after: avoid; }
  .panels.several { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
  .pts { display: none; }
  figure svg, ul.key svg { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
# A table of each order is in the page; the chosen one is shown, without a script.
CSS += "".join(
    f".sort:has(input.by-{name}:checked) table.by-{name} {{ display: table; }}\n"
    for name in ("listed", *METRICS)
)
CSS += "@supports not selector(:has(a)) { .sort table.by-listed { display: table; } }\n"
_MARKS = {
    "-": '<path d="M0 6H18" stroke="C" stroke-width="2.4"/>',
    ":": '<path d="M0 6H18" stroke="C" stroke-width="2.4" stroke-dasharray="2 3"/>',
    "o": '<circle cx="9" cy="6" r="4" fill="C"/>',
    ".": '<circle cx="9" cy="6" r="2.4" fill="C"/>',
    "s": '<rect x="5" y="2" width="8" height="8" fill="C"/>',
    "D": '<path d="M9 1l5 5-5 5-5-5z" fill="C"/>',
    "^": '<path d="M9 1l5 9H4z" fill="C"/>',
}


def page(title: str, body: str) -> str:
    """Return a whole HTML document; ``body`` is HTML already, ``title`` is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def contents(headings: Sequence[tuple[str, str]]) -> str:
    """Return the list of a page's sections: (id, heading)."""
    items = "".join(f'<li><a href="#{name}">{escape(text)}</a></li>' for name, text in headings)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def figure(
    svg: str | Sequence[str],
    caption: str,
    finding: str = "",
    titles: Sequence[str] = (),
    keys: Sequence[Key] = (),
    width: float = 10.4,
) -> str:
    """Return a figure of one picture, or of several side by side where there is room.

    Args:
        svg: each as ``style.as_svg`` returns it.
        caption: how it is to be read; shown below.
        finding: what it shows, for a screen reader; by default the caption.
        titles: of the pictures, shown above them.
        keys: the legend.
        width: that a picture needs, in inches of a hundred pixels.
    """
    svgs = [svg] if isinstance(svg, str) else list(svg)
    titles = titles or [""] * len(svgs)
    shown = []
    for title, one in zip(titles, svgs, strict=True):
        alt = ": ".join(text for text in (title, finding or caption) if text)
        one = one.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
        head = f"<h3>{escape(title)}</h3>" if title else ""
        # A picture as wide as a page is moved aside on a telephone, where it could not be read.
        wide = ' class="scroll" tabindex="0"' if width > 8 else ""
        shown.append(f"<div{wide}>{head}{one}</div>")
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    least, most = f"min(100%, {100 * width:.0f}px)", "1fr"
    if len(svgs) == 1:
        most = f"minmax(0, {min(1040, 130 * width):.0f}px)"
    several = " several" if len(svgs) > 1 else ""
    columns = f"repeat(auto-fill, minmax({least}, 1fr))" if len(svgs) > 1 else most
    return (
        f'<figure>{_key(keys)}<div class="panels{several}" '
        f'style="grid-template-columns: {columns}">{"".join(shown)}</div>{below}</figure>'
    )


def _key(keys: Sequence[Key]) -> str:
    if not keys:
        return ""
    items = []
    for key in keys:
        colour = next((f"var(--{n})" for n, c in THEME.items() if c == key.colour), key.colour)
        mark = _MARKS[key.shape].replace('"C"', f'"{colour}"')
        svg = f'<svg viewBox="0 0 18 12" aria-hidden="true">{mark}</svg>'
        items.append(f"<li>{svg}{escape(key.label)}</li>")
    return f'<ul class="key">{"".join(items)}</ul>'


def definitions(rows: list[tuple[str, str]]) -> str:
    """Return the small print: a table of names and texts."""
    lines = "".join(
        f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in rows
    )
    return f'<table class="print"><tbody>{lines}</tbody></table>'


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return lines of texts that have the same columns, the first line's."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f'<td data-head="{escape(k)}">{escape(v)}</td>' for k, v in row.items())
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="print"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
