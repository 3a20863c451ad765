# SPDX-License-Identifier: MIT
"""``ltplugins zoo add``: one run, or several of one experiment, become an entry with its card."""

import dataclasses
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltplugins.catalogue.files import CONFIG, FACTS, read_config
from ltplugins.catalogue.index import INDEX, Index, require_name
from ltplugins.core.errors import UserError
from ltplugins.core.files import write_json
from ltplugins.core.records import from_plain, to_plain
from ltplugins.methods.needs import learns_from_labels
from ltplugins.runs.facts import now
from ltplugins.stages.traits import run_traits
from ltplugins.stages.zoo.evaluated import open_evaluated
from ltplugins.stages.zoo.figure import draw_entry, draw_zoo
from ltplugins.stages.zoo.place import require_folder
from ltplugins.stages.zoo.rounded import measured
from ltplugins.zoo.backbone import Backbone
from ltplugins.zoo.check import check_of
from ltplugins.zoo.entry import open_entry
from ltplugins.zoo.export import Form, round_to_half, write_forms
from ltplugins.zoo.facts import EntryFacts, ZooFacts
from ltplugins.zoo.folder import (
    entries_of,
    pages_of,
    require_free,
    write_card,
    write_pages,
)
from ltplugins.zoo.gather import (
    Evaluated,
    config_without_places,
    gather_protocols,
    gather_runs,
)
from ltplugins.zoo.load import load_backbone
from ltplugins.zoo.words import summary_of

_DATA_LICENSES = {
    "fashion_pack": "Fashion-MNIST, Zalando SE, MIT",
    "fashion_mnist": "Fashion-MNIST, Zalando SE, MIT",
    "land_pack": "Blue Marble Next Generation, NASA Earth Observatory; MCD12C1, NASA LP DAAC",
}


@dataclasses.dataclass(frozen=True)
class Naming:
    """What a person says of an entry.

    Attributes:
        name: of the entry; None = method, data set and network.
        weights: the run whose weights are shipped; None = the first one.
        license: of the weights, by its SPDX name.
        urls: where the entry lies as well.
        replace: an entry of this name that is there.
        half: keep the weights in float16; they are rounded, and measured anew as rounded.
    """

    name: str | None = None
    weights: Path | None = None
    license: str = "mit"
    urls: tuple[str, ...] = ()
    replace: bool = False
    half: bool = False


def add(runs: Sequence[str | Path], zoo: Path, naming: Naming) -> Path:
    """Write an entry of finished runs into a zoo, and its card, index and page.

    Runs that are not evaluated as they are now are evaluated, by the packaged protocols.

    Args:
        runs: folders of runs that are equal in all but seed, class order, split seed and fold.
        zoo: the folder of the zoo.
        naming: name, and which run's weights are shipped.

    Returns:
        The entry's folder.

    Raises:
        UserError: a name that is taken or is none, a folder that is not a zoo's or has a damaged
            entry, a run that is not finished, without config, seed or protocol, runs of several
            experiments, or a network that no form can express.
    """
    places, shipped = _given(runs, naming.weights)
    require_folder(zoo, "--zoo")
    if naming.name is not None:
        require_free(zoo, naming.name, naming.replace)
    if zoo.exists():
        pages_of(zoo)
    found = [open_evaluated(path) for path in places]
    main = found[shipped]
    _require_one_experiment(found)
    naming = dataclasses.replace(naming, name=naming.name or _name_of(main))
    place = require_free(zoo, str(naming.name), naming.replace)
    facts = _facts(found, main, naming)
    zoo.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=zoo, prefix=f".{naming.name}.") as tmp:
        _write(main.path, Path(tmp) / "entry", facts)
        if naming.half:  # the numbers are to be of these weights
            rounded = measured(main, Path(tmp) / "entry", Path(tmp) / "measured")
            found = [rounded if run is main else run for run in found]
            facts = _facts(found, rounded, naming)
            _write(main.path, Path(tmp) / "entry", facts)
        if place.exists():  # moved, not removed: what breaks in between leaves a whole one
            place.rename(Path(tmp) / "before")
        (Path(tmp) / "entry").rename(place)
    draw_zoo(zoo)
    write_pages(zoo)
    return place


def refresh(zoo: Path, names: Sequence[str] = ()) -> Index:
    """Write cards, figures, index and page of a zoo anew, from what its entries say.

    Args:
        zoo: the folder.
        names: of the entries; none = all.

    Raises:
        UserError: no such entry, one that is damaged, or a folder that is no zoo.
    """
    for name in names:
        if not (zoo / require_name(name) / CONFIG).is_file():
            raise UserError(f"{zoo / name} is no entry: expected {CONFIG} in it.")
    known = entries_of(zoo) if zoo.is_dir() else {}
    if not known and not (zoo / INDEX).is_file():
        raise UserError(
            f"{zoo} is no zoo: expected a folder with {INDEX}, or an entry in it. Give another "
            f"--zoo; 'ltplugins zoo add' makes one."
        )
    chosen = [name for name in known if not names or name in names]
    pages_of(zoo, chosen)
    for name in chosen:
        draw_entry(zoo / name)
        write_card(zoo / name)
    draw_zoo(zoo)
    return write_pages(zoo)


def _given(runs: Sequence[str | Path], weights: Path | None) -> tuple[list[Path], int]:
    """The folders of the runs, and which of them has the weights.

    Raises:
        UserError: one is given twice, or the weights are of none of them.
    """
    known: dict[Path, Path] = {}
    for run in map(Path, runs):
        if (twin := known.setdefault(run.resolve(), run)) is not run:
            raise UserError(
                f"{twin} and {run} are the same run: expected each once. Leave one of them out."
            )
    wanted = next(iter(known)) if weights is None else weights.resolve()
    if wanted not in known:
        raise UserError(
            f"--weights: expected one of the runs ({', '.join(map(str, known.values()))}), got "
            f"{weights}."
        )
    return [*known.values()], [*known].index(wanted)


def _name_of(run: Evaluated) -> str:
    """What an entry is called where nobody gives it a name."""
    network = run.config["backbone"]["name"]
    words = (
        run.facts.label or run.facts.method,
        run.results.dataset.removesuffix("_pack"),
        network,
    )
    return re.sub(r"[^a-z0-9_.-]+", "-", "-".join(words).lower())


def _require_one_experiment(runs: Sequence[Evaluated]) -> None:
    first, *others = runs
    there = run_traits(first.path, first.results)
    for run in others:
        here = run_traits(run.path, run.results)
        other = [
            key
            for key in sorted({*there, *here})
            if (a := there.get(key)) != (b := here.get(key))
            and not (a is not None and b is not None and not (a.is_known and b.is_known))
        ]
        if other:
            raise UserError(
                f"{run.path} is of another experiment than {first.path}: {other[0]} is "
                f"{_shown(here, other[0])} there, {_shown(there, other[0])} here. Expected runs "
                f"that differ in seed, class order, split seed and fold alone."
            )


def _shown(traits: Any, key: str) -> str:
    return traits[key].shown if key in traits else "not set"


def _facts(runs: Sequence[Evaluated], main: Evaluated, naming: Naming) -> ZooFacts:
    summary, paper = summary_of(main.facts.method)
    dataset = main.results.dataset
    return ZooFacts(
        name=str(naming.name),
        summary=summary,
        paper=paper,
        runs=gather_runs(runs, main.path),
        protocols=gather_protocols(runs),
        config=config_without_places(main.config),
        check=check_of(_opened(main.path, naming.half)),
        license=naming.license,
        data_license=_DATA_LICENSES.get(dataset),
        added=now()[:10],
        urls=list(naming.urls),
        half=naming.half,
        labels=learns_from_labels(main.facts.method),
    )


def _opened(run: Path, half: bool) -> Backbone:
    backbone = load_backbone(run)
    if half:
        round_to_half(backbone)
    return backbone


def _write(run: Path, folder: Path, zoo: ZooFacts) -> None:
    """Write an entry into a folder, in the place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    backbone = _opened(run, zoo.half)
    form: Form = "torchvision" if backbone.architecture.small_stem else "timm"
    write_forms(backbone, folder, frozenset({form}), zoo.half)
    config = read_config(folder)
    facts = from_plain(EntryFacts, config[FACTS], folder / CONFIG, EntryFacts.FORM)
    block = to_plain(dataclasses.replace(facts, zoo=zoo))
    write_json(folder / CONFIG, {**config, FACTS: block})
    opened = open_entry(folder)
    if check_of(opened).features != zoo.check.features:
        raise UserError(
            f"{shlex.quote(str(run))} cannot be an entry: opened again, it gives other features."
        )
    draw_entry(folder)
    write_card(folder)
