# SPDX-License-Identifier: MIT
"""What a wrapper or method declares it needs is checked, for both by one contract."""

from typing import Any

import pytest
from omegaconf import OmegaConf

import ltplugins
from ltplugins.core.errors import UserError
from ltplugins.host import METHODS
from ltplugins.methods.needs import Needs, check_method_needs, check_needs
from ltplugins.methods.registry import METHODS as OURS
from ltplugins.methods.registry import WRAPPERS, load_mixin
from tests.kit.hosts import tiny_cfg

ltplugins.register()
NAMES = [*(f"{wrapper}_simclr" for wrapper in WRAPPERS), *OURS]


def needs_of(name: str) -> Needs:
    mixin: Any = load_mixin(name.removesuffix("_simclr"))
    return mixin.needs


def fitting(name: str) -> Any:
    """A config whose data have all that the method needs."""
    needs = needs_of(name)
    cfg = tiny_cfg("simclr", data__num_samples=8, data__num_large_crops=needs.numbers[-1])
    cfg.method = name
    cfg.method_kwargs = cfg.method_kwargs if "_" in name else {}
    if needs.samplers:
        cfg.data.sampler = needs.samplers[0]
    if needs.ood:
        cfg.data.ood = {"dataset": "emoji_pack"}
    return cfg


def violations(name: str) -> list[tuple[str, Any, str]]:
    """A key, a value that does not fit, and what is said, for each thing that is declared."""
    needs = needs_of(name)
    found: list[tuple[str, Any, str]] = [
        ("data.num_large_crops", 0, "large view.* of each image.*augmentations give 0")
    ]
    if not needs.more_views:
        found.append(("data.num_large_crops", 7, "takes exactly .* large view.* give 7"))
    if not needs.small_views:
        found.append(("data.num_small_crops", 2, "no small ones.* 2 small"))
    if needs.indexes:
        found.append(("data.format", "dali", "needs true indexes.*encode_indexes_into_labels=true"))
    if needs.labels:
        found.append(("data.no_labels", True, "learns from labels, and data.no_labels is true"))
    if needs.ood:
        found.append(("data.ood", None, "data.ood names none. Set data.ood"))
    if needs.samplers:
        found.append(("data.sampler", "class_aware", r"draws its images with.*Set data\.sampler="))
    return found


CASES = [(name, *violation) for name in NAMES for violation in violations(name)]


@pytest.mark.parametrize(("name", "key", "value", "text"), CASES)
def test_what_is_declared_is_checked_before_the_method_is_built(
    name: str, key: str, value: Any, text: str
) -> None:
    cfg = fitting(name)
    check_needs(cfg, name, needs_of(name))
    OmegaConf.update(cfg, key, value, force_add=True)
    with pytest.raises(UserError, match=f"^{name} .*{text}") as error:
        METHODS[name](cfg)
    assert "\n" not in str(error.value)


def test_there_is_a_case_for_every_field_of_the_contract() -> None:
    """Each field that restricts is declared by something of ours, or it would be dead."""
    all_needs = [needs_of(name) for name in NAMES]
    for field in ("indexes", "labels", "samplers", "ood", "hint"):
        assert any(getattr(needs, field) for needs in all_needs), field
    assert {needs.views for needs in all_needs} >= {2, 3, (1, 2)}


def test_a_composition_has_the_needs_of_all_its_wrappers() -> None:
    cfg = fitting("colt_simclr")
    cfg.method, cfg.data.sampler = "gh_colt_simclr", "shuffle"
    with pytest.raises(UserError, match="gh_colt_simclr draws its images with"):
        METHODS["gh_colt_simclr"](cfg)


def test_needs_in_words() -> None:
    assert Needs(more_views=True).describe() == "2 views or more"
    assert Needs(indexes=True, views=1).describe() == "true indexes, 1 view"
    needs = Needs(views=(1, 2), samplers=("two_branch",), ood=True)
    assert needs.describe() == "1 or 2 views, sampler two_branch, data.ood"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_one_crop_is_refused_where_two_are_needed(name: str) -> None:
    if name in ("base", "linear"):
        return
    takes_one = 1 in [v for _, its in all_needs(name) for v in its.numbers]
    cfg = tiny_cfg("simclr", data__num_large_crops=1)
    cfg.method, cfg.method_kwargs = name, {}
    if takes_one:
        assert name in ("iccl", "mae")
        return
    cfg.data.sampler = next((its.samplers[0] for _, its in all_needs(name) if its.samplers), None)
    cfg.data.ood = {"dataset": "emoji_pack"} if "colt" in name else None
    with pytest.raises(UserError, match=r"large views? of each image"):
        check_method_needs(cfg, METHODS[name])


def all_needs(name: str) -> list[tuple[str, Needs]]:
    from ltplugins.methods.needs import needs_of as declared

    cfg = tiny_cfg("simclr")
    cfg.method, cfg.method_kwargs = name, {}
    return declared(cfg, METHODS[name])


@pytest.mark.parametrize("name", ["simclr", "gh_simclr", "mttv"])
def test_a_pool_that_nothing_draws_from_is_refused(name: str) -> None:
    cfg = tiny_cfg("simclr", data__ood={"dataset": "emoji_pack"})
    cfg.method, cfg.data.sampler = name, "paired" if name == "mttv" else "id_plus_ood"
    with pytest.raises(UserError, match=rf"^data.ood is given, and {name} draws nothing from it"):
        check_method_needs(cfg, METHODS[name])
    cfg.method, cfg.data.sampler = "gh_colt_simclr", "id_plus_ood"
    check_method_needs(cfg, METHODS["gh_colt_simclr"])


def test_a_base_that_learns_from_labels_needs_them() -> None:
    cfg = tiny_cfg("supcon", data__no_labels=True)
    with pytest.raises(UserError, match="supcon learns from labels"):
        check_method_needs(cfg, METHODS["supcon"])
