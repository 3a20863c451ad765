# SPDX-License-Identifier: MIT
"""What a card says, and does not say, of what an entry does not hold."""

import dataclasses

import pytest
import yaml

from ltplugins.catalogue.index import Index
from ltplugins.stages.zoo.figure import row_labels
from ltplugins.zoo.card import card
from ltplugins.zoo.facts import read_facts
from ltplugins.zoo.page import zoo_page
from tests.kit.hosts import on_the_stand_in

pytestmark = on_the_stand_in


@pytest.fixture
def entry(made_zoo):
    return read_facts(made_zoo / "tiny")


def with_zoo(facts, **changes):
    return dataclasses.replace(facts, zoo=dataclasses.replace(facts.zoo, **changes))


def test_a_classifier_that_is_not_in_the_entry(entry, made_zoo):
    """Its accuracy is told, and not as a number of these weights."""
    config, facts = entry
    name, known = next(iter(facts.zoo.protocols.items()))
    own = dataclasses.replace(known, kind="classifier", description="the run's own classifier")
    shipped = facts.zoo.shipped
    run = dataclasses.replace(shipped, scores={**shipped.scores, "classifier": {"overall": 0.4321}})
    protocols = {"classifier": own, **facts.zoo.protocols}
    text = card(config, with_zoo(facts, protocols=protocols, runs=[run]))
    head = yaml.safe_load(text.split("---\n")[1])
    named = [m["name"] for r in head["model-index"][0]["results"] for m in r["metrics"]]
    assert any(word.startswith(name) for word in named)
    assert not any(word.startswith("classifier") for word in named)
    row = next(line for line in text.splitlines() if line.startswith("| `classifier`"))
    assert row.endswith("| n/a |") and "43.21" not in text
    assert "the run's own classifier; the entry does not hold that classifier" in text
    page = zoo_page(
        {"tiny": (config, with_zoo(facts, protocols=protocols))}, Index(), made_zoo / "none"
    )
    assert "## `custom`, `classifier`" in page and "does not hold that classifier" in page


@pytest.mark.parametrize(
    ("labels", "row", "cell"),
    [
        (True, "| labels | learned from those of its training images |", "yes"),
        (False, "| labels | none used |", "no"),
        (None, None, "n/a"),  # an entry of before
    ],
)
def test_whether_labels_were_learned_from(entry, made_zoo, labels, row, cell):
    config, facts = entry
    told = with_zoo(facts, labels=labels)
    lines = card(config, told).splitlines()
    assert [line for line in lines if line.startswith("| labels |")] == ([row] if row else [])
    page = zoo_page({"tiny": (config, told)}, Index(), made_zoo / "none").splitlines()
    head = next(line for line in page if line.startswith("| entry |"))
    values = next(line for line in page if line.startswith("| [tiny]"))
    columns = [column.strip() for column in head.split("|")]
    assert values.split("|")[columns.index("labels")].strip() == cell


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["gh-a-net", "simclr-a-net", "gh-a-vit"], {}, ["gh-net", "simclr-net", "gh-vit"]),
        (["iccl-a-net", "simclr-a-net"], {"iccl-a-net": True}, ["iccl (labels)", "simclr"]),
        (["a-b", "b-a"], {}, ["a-b", "b-a"]),  # nothing would be left
        (["gh-a-net"], {}, ["gh-a-net"]),
    ],
)
def test_rows_of_the_figure_are_called_by_what_differs(entry, names, labels, expected):
    _, facts = entry
    made = [with_zoo(facts, name=name, labels=labels.get(name)).zoo for name in names]
    assert row_labels(made) == expected


def test_a_spatial_split_says_how_it_was_cut(entry):
    config, facts = entry
    run = dataclasses.replace(facts.zoo.shipped, fold=3)
    plain = {**facts.zoo.config, "data": {"folds": 5, "fold": 3, "tile": 32}}
    text = card(config, with_zoo(facts, runs=[run], config=plain))
    assert "the training part of fold 3 of 5 (tiles of 32 pixels; the parts share no pixel)" in text
    assert "training part of fold" not in card(config, facts)
    assert "another seed, class order or fold" in text
