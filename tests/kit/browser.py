# SPDX-License-Identifier: MIT
"""A page as Chromium lays it out: what is too wide, what the tables show, what it asks for."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
_MEASURE = """
const frame = document.getElementById("page");
frame.onload = () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const isShown = e => e.getClientRects().length > 0;
  const tables = () => [...page.querySelectorAll("table.results")].filter(isShown).map(
    t => [...t.querySelectorAll("tbody tr")].map(
      r => [...r.children].map(c => (c.querySelector("b") || c).firstChild.textContent)));
  const wide = [...page.body.querySelectorAll("*")].filter(e => isShown(e)
    && e.getBoundingClientRect().right > view.innerWidth + 1
    && !(e.parentElement.closest(".scroll, pre, svg"))).map(e => e.outerHTML.slice(0, 120));
  const found = {width: page.documentElement.scrollWidth, inner: view.innerWidth, wide: wide,
    requests: view.performance.getEntriesByType("resource").map(e => e.name),
    tables: tables(), sorted: {}};
  for (const name of ["few", "group_std"]) {
    page.querySelector(`input.by-${name}`).click();
    found.sorted[name] = tables()[0];
  }
  const point = page.querySelector(".pt"), up = point && point.querySelector(".up");
  if (point) {
    const seen = () => view.getComputedStyle(up).visibility;
    const before = seen();
    point.focus();
    const box = up.getBoundingClientRect(), plate = point.closest("svg").getBoundingClientRect();
    found.point = {before: before, after: seen(), inside: box.left >= plate.left - 1
      && box.right <= plate.right + 1 && box.top >= plate.top - 1 && box.bottom <= plate.bottom + 1,
      width: box.width};
  }
  const head = page.querySelector("table.by-group_std th[scope=row]");
  const style = view.getComputedStyle(head);
  found.head = {position: style.position, left: style.left, width: head.offsetWidth};
  document.getElementById("found").textContent = JSON.stringify(found);
};
"""


def look(page: str, folder: Path, width: int) -> dict[str, Any]:
    """Measure a page in a window so many pixels wide; ``console`` is what it complained of."""
    assert CHROMIUM is not None
    path = folder / f"frame-{width}.html"
    quoted = json.dumps(page).replace("</", r"<\/")
    path.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><pre id="found"></pre>'
        f'<iframe id="page" width="{width}" height="1200" style="border:0"></iframe>'
        f"<script>{_MEASURE}\nframe.srcdoc = {quoted};</script>",
        encoding="utf-8",
    )
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    words += [f"--user-data-dir={folder / 'profile'}", "--disable-extensions", "--no-first-run"]
    words += ["--window-size=1600,1400", "--timeout=60000", "--dump-dom", path.as_uri()]
    done = subprocess.run([CHROMIUM, *words], capture_output=True, text=True, timeout=180)
    text = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert text is not None and text[1], done.stderr[-2000:]
    found = json.loads(html.unescape(text[1]))
    found["console"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return found
