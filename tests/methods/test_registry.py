# SPDX-License-Identifier: MIT
"""The registry: everything of ours has its five parts, registering is idempotent, no thefts."""

import pytest

import ltplugins
from ltplugins.core.errors import UserError
from ltplugins.methods.build import register_methods
from ltplugins.methods.registry import COMPOSED, WRAPPERS, load_mixin, option_classes
from ltplugins.methods.registry import METHODS as OURS
from tests.kit.paths import ROOT
from tests.kit.results import compared

# A method is added first and compared later: its section, scripts and results come together.
MEASURED = [name for name in [*WRAPPERS, *OURS] if compared() & {name, f"{name}_simclr"}]


@pytest.mark.parametrize("name", [*WRAPPERS, *OURS])
def test_every_wrapper_and_method_has_its_five_parts(name):
    for part in (
        f"ltplugins/losses/{name}.py",
        f"ltplugins/methods/{name}.py",
        f"ltplugins/conf/method/{name}.yaml",
        f"tests/methods/test_{name}.py",
        f"tests/losses/test_{name}.py",
    ):
        assert (ROOT / part).exists(), f"{name} lacks {part}"
    head = (ROOT / f"ltplugins/methods/{name}.py").read_text()[:1500]
    assert "arxiv.org" in head
    assert "github.com" in head
    mixin = load_mixin(name)
    assert (mixin.wrapper_name if name in WRAPPERS else mixin.method_name) == name


@pytest.mark.parametrize("name", MEASURED)
def test_what_has_results_has_its_scripts(name):
    """On the embedded data, CIFAR-100-LT (its head says what CIFAR-10-LT needs) and ImageNet-LT."""
    method = f"{name}_simclr" if name in WRAPPERS else name
    for part in ("fashion/{}", "land/{}", "cifar/{}", "imagenet_lt/{}"):
        path = ROOT / f"scripts/pretrain/{part.format(method)}.yaml"
        assert path.exists(), f"{name} lacks {path}"
        text = path.read_text()
        assert f"method: {method}\n" in text
        assert ("data=cifar10_lt" in text) == part.startswith("cifar/")


@pytest.mark.parametrize("name", [*WRAPPERS, *OURS])
def test_readme_and_the_files_head_say_what_the_entry_says(name):
    entry = {**WRAPPERS, **OURS}[name]
    labels = load_mixin(name).needs.labels
    row = f"| `{entry.usage}` | {entry.title}, {entry.venue} {entry.year} | "
    row += f"{'yes' if labels else 'no'} | {entry.summary} |\n"
    assert row in (ROOT / "README.md").read_text()
    text = (ROOT / f"ltplugins/methods/{name}.py").read_text()
    assert entry.paper in text
    assert entry.code in text.replace("\n", " ")


@pytest.mark.parametrize("name", MEASURED)
def test_docs_say_what_the_entry_says(name):
    entry = {**WRAPPERS, **OURS}[name]
    labels = load_mixin(name).needs.labels
    names = [entry.usage]
    names += [f"{c.outer}_{c.inner}_<base>" for c in COMPOSED if c.inner == name]
    listed = ", ".join(f"`{one}`" for one in names) + (", supervised" if labels else "")
    _, head, section = (
        (ROOT / "docs/methods.md").read_text().partition(f"## {entry.title} ({listed})\n")
    )
    assert head
    assert f"    {entry.formula}\n" in section.partition("\n## ")[0]


def test_all_methods_of_today_are_measured():
    assert {"gh", "colt", "mv", "ts", "sdclr", "bcl", "mttv", "focal", "iccl", "gml"} <= {*MEASURED}


@pytest.mark.parametrize("name", OURS)
def test_a_method_stands_on_the_hosts_own_base(name):
    from ltplugins.host import METHODS, BaseMethod, BaseMomentumMethod

    assert name in ltplugins.register()
    mixin = load_mixin(name)
    assert issubclass(METHODS[name], BaseMethod)
    assert issubclass(METHODS[name], BaseMomentumMethod) == mixin.uses_momentum
    assert METHODS[name].__name__ == mixin.__name__.removesuffix("Mixin")
    assert option_classes(name) == {"method_kwargs": mixin.method_config}
    assert not any(n.endswith(f"_{name}") for n in METHODS)  # wrappers go over the host's own


def test_option_classes_of_a_wrapper():
    assert option_classes("simclr") == {}
    assert option_classes("gh_simclr") == {"method_kwargs.gh": load_mixin("gh").wrapper_config}


def test_registering_twice_is_the_same_as_once():
    from ltplugins.host import METHODS

    names = ltplugins.register()
    classes = {n: METHODS[n] for n in names}
    assert ltplugins.register() == names
    assert all(METHODS[n] is c for n, c in classes.items())
    assert "gh_simclr" in names
    assert not any(n.startswith("gh_gh_") for n in METHODS)
    assert METHODS["gh_simclr"].__name__ == "GHSimCLR"


def test_a_taken_name_is_refused(monkeypatch):
    from ltplugins.host import METHODS

    class Foreign:
        pass

    monkeypatch.setitem(METHODS, "gh_simclr", Foreign)
    with pytest.raises(UserError, match="cannot register 'gh_simclr'"):
        register_methods()
