# SPDX-License-Identifier: MIT
"""Whoever writes Markdown: a name in it is text, in whichever file and place it stands."""

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

import ltplugins
from ltplugins.catalogue.index import Index
from ltplugins.core.errors import UserError
from ltplugins.core.markdown import code, plain, table
from ltplugins.core.records import from_plain
from ltplugins.report.claims import ClaimRow
from ltplugins.report.pages import claims, masks, write
from ltplugins.report.pages.exhibits import exhibits
from ltplugins.report.pages.masks import MaskRun
from ltplugins.report.thumbs import Thumbs
from ltplugins.zoo.card import card
from ltplugins.zoo.facts import EntryFacts
from ltplugins.zoo.page import figure_of, zoo_page
from ltplugins.zoo.usage import usage
from tests.kit.paths import ROOT
from tests.kit.study import study

NAME = "a|b[/b]<i>*x*</i>\x1b[31m `c` ~~d~~ [e](http://127.0.0.1) \n# f"
SHOWN = "a|b[/b]<i>*x*</i>\\x1b[31m `c` ~~d~~ [e](http://127.0.0.1) # f"
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def require_text(markdown: str) -> None:
    """It is read as it stands: no HTML, no link, no letters of another kind, rows of one width."""
    assert "\x1b" not in markdown
    inline = [token for token in READER.parse(markdown) if token.type == "inline"]
    tokens = [child for token in inline for child in token.children or ()]
    assert not [t for t in READER.parse(markdown) if t.type == "html_block"]
    assert not [t for t in tokens if t.type == "html_inline"]
    marked = [after for t, after in pairwise(tokens) if t.type in ("em_open", "s_open")]
    assert not [t for t in marked if t.content in ("x", "d")]
    assert not [t for t in tokens if t.type == "link_open" and "127.0.0.1" in str(t.attrs)]
    assert not [t for t in inline if t.content.strip() == "f"]  # a heading of its own
    for block in re.findall(r"(?:^\|.*\n)+", f"{markdown}\n", re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
    assert SHOWN in " ".join(t.content.replace("\\|", "|") for t in tokens)


def of_report() -> str:
    runs = study(["simclr", "gh_simclr"], 1, [NAME])
    for run in runs:
        run.group_key, run.class_names = f"{NAME} {run.group_key}", [NAME] * 10
        run.info = {NAME: NAME}
        run.results.notes.append(NAME)
    study_of = write.make_study(runs)
    shown = exhibits(study_of, Thumbs())
    assert len(shown) > 1
    return write._markdown(NAME, study_of, [], {NAME: []}, shown)


def of_masks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    run = MaskRun(NAME, NAME, 0, {NAME: 0.5}, [NAME, "b"], [0.5, 0.5], [3, 3], {}, notes=[NAME])
    monkeypatch.setattr(masks, "_draw", lambda rows, out: [("x.png", NAME, NAME, "<svg></svg>")])
    masks.write_mask_report([run], folder, NAME)
    return (folder / "report.md").read_text()


def of_claims() -> str:
    texts = [f.name for f in dataclasses.fields(ClaimRow) if f.type is str]
    row: Any = SimpleNamespace(**dict.fromkeys(texts, NAME), verdict=NAME, pairs=6)
    row.found = SimpleNamespace(n=6, effect=0.1, low=0.0, high=0.2, p=0.1)
    row.cells = lambda: dict.fromkeys((*claims._SHOWN, "pairs", "low", "high", "epochs"), NAME)
    return claims._markdown([row])


def hostile_entry() -> tuple[dict[str, Any], EntryFacts]:
    """An entry of the zoo all of whose texts are the name."""
    config = json.loads((ROOT / "zoo/simclr-fashion-test_resnet/config.json").read_text())
    block = copy.deepcopy(config["ltplugins"])
    name = block["zoo"]["name"]

    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: spoil(v) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v) for v in value]
        return NAME if isinstance(value, str) else value

    spoilt = spoil(block)
    protocols = spoilt["zoo"]["protocols"]
    spoilt["zoo"] |= {"name": name, "protocols": {NAME: next(iter(protocols.values()))}}
    config["architecture"] = NAME
    return config, from_plain(EntryFacts, spoilt, "x", EntryFacts.FORM)


def of_card() -> str:
    """Below its head, which is YAML."""
    _, head, below = card(*hostile_entry()).split("---\n", 2)
    assert yaml.safe_load(head)["license"] == NAME
    return below


def of_page(folder: Path) -> str:
    (folder / "reported.csv").write_text(f'method,data\n"{NAME}",x\n')
    return zoo_page({"tiny": hostile_entry()}, Index(), folder / "reported.csv")


def of_usage() -> str:
    facts = hostile_entry()[1]
    seen = SimpleNamespace(resize=32, interpolation=NAME, size=32, mean=(0.5,), std=(0.5,))
    given = SimpleNamespace(label=NAME, origin=facts.origin, epochs=1, dataset=NAME, seed=0)
    made = SimpleNamespace(name=NAME)
    model: Any = SimpleNamespace(
        provenance=given, transform=seen, architecture=made, num_features=8, size=32
    )
    return usage(model, ["timm"])


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], str]] = {
    "report/pages/write.py": lambda folder, patch: of_report(),
    "report/pages/masks.py": of_masks,
    "report/pages/claims.py": lambda folder, patch: of_claims(),
    "zoo/page.py": lambda folder, patch: of_page(folder),
    "zoo/export.py": lambda folder, patch: of_usage(),
    "zoo/card.py": lambda folder, patch: of_card(),
}


def test_these_are_all_that_write_markdown() -> None:
    package = Path(ltplugins.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r'write_text\([^)]*(\.md"|PAGE)', path.read_text(encoding="utf-8"))
    }
    # Whose text zoo/folder.py writes.
    assert found | {"zoo/card.py", "zoo/page.py"} == WRITERS.keys() | {"zoo/folder.py"}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_name_is_text(writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_text(WRITERS[writer](tmp_path, monkeypatch))


@pytest.mark.parametrize("write", [plain, code])
def test_the_functions_themselves(write: Callable[[str], str]) -> None:
    require_text(f"| {write(NAME)} | b |\n|---|---|\n")
    require_text(table([write(NAME), "b"], [[write(NAME), "c"]]))


@pytest.mark.parametrize("text", [NAME, NAME.replace("|", "\\|"), f"**{NAME}**"])
def test_a_writer_that_leaves_something_out_is_found(text: str) -> None:
    with pytest.raises(AssertionError):
        require_text(f"| {text} | b |\n|---|---|\n")


def test_an_entry_of_another_name_has_no_card() -> None:
    """Its name stands in lines that readers copy and run."""
    config, facts = hostile_entry()
    assert facts.zoo is not None
    object.__setattr__(facts.zoo, "name", '")\n```\nimport os')
    with pytest.raises(UserError, match="expected a name of small letters"):
        card(config, facts)


def test_a_figure_stays_in_the_zoos_folder() -> None:
    assert figure_of("../../x y") == "groups--x-y.png"
    assert figure_of("fashion_pack") == "groups-fashion_pack.png"
