# SPDX-License-Identifier: MIT
"""What a wrapper or a method needs of the data: declared in its class, checked here for both."""

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.host.facts import facts_of
from ltplugins.methods.registry import METHODS, load_mixin, split_name


@dataclass(frozen=True)
class Needs:
    """The needs of one wrapper or method.

    Attributes:
        indexes: the true index of every image, for a memory per image.
        labels: a label of every image.
        views: the number of large views that a step takes, or the numbers that it can take.
        more_views: further large views do no harm.
        small_views: nor do small ones.
        samplers: values of ``data.sampler`` that fit; empty for any.
        ood: images of a second source, ``data.ood``.
        hint: what to set where the views do not fit; empty for the number of crops.
    """

    indexes: bool = False
    labels: bool = False
    views: int | tuple[int, ...] = 2
    more_views: bool = False
    small_views: bool = False
    samplers: tuple[str, ...] = ()
    ood: bool = False
    hint: str = ""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of large views as a tuple."""
        return self.views if isinstance(self.views, tuple) else (self.views,)

    def describe(self) -> str:
        """All of it but the labels in a few words, such as "true indexes, 2 views or more"."""
        views = " or ".join(map(str, self.numbers))
        words = [f"{views} view{'s' * (max(self.numbers) > 1)}{' or more' * self.more_views}"]
        if self.indexes:
            words.insert(0, "true indexes")
        if self.samplers:
            words.append(f"sampler {' or '.join(self.samplers)}")
        if self.ood:
            words.append("data.ood")
        return ", ".join(words)


def check_needs(cfg: DictConfig, name: str, needs: Needs) -> None:
    """Refuse a config whose data cannot serve.

    Args:
        cfg: a run's config, its crops counted.
        name: of the method, for messages.

    Raises:
        UserError: what is needed, what the config gives, and the way out.
    """
    if needs.indexes:
        _require_indexes(cfg, name)
    if needs.labels and OmegaConf.select(cfg, "data.no_labels"):
        raise UserError(
            f"{name} learns from labels, and data.no_labels is true. Set data.no_labels=false, or "
            f"take a method that needs none."
        )
    _require_views(cfg, name, needs)
    if needs.ood and OmegaConf.select(cfg, "data.ood") is None:
        raise UserError(
            f"{name} draws images from a second source and data.ood names none. "
            f"Set data.ood, such as {{dataset: emoji_pack}}, and data.sampler: id_plus_ood."
        )
    if needs.samplers:
        _require_sampler(cfg, name, needs.samplers)


def check_method_needs(cfg: DictConfig, cls: type) -> None:
    """Refuse a config whose data cannot serve its method, or hold a pool that it never draws from.

    Args:
        cfg: a run's config, its crops counted.
        cls: of the host's ``METHODS``.

    Raises:
        UserError: see :func:`check_needs`.
    """
    needs = needs_of(cfg, cls)
    for name, its in needs:
        check_needs(cfg, name, its)
    if OmegaConf.select(cfg, "data.ood") is not None and not any(its.ood for _, its in needs):
        raise UserError(
            f"data.ood is given, and {cfg.method} draws nothing from it. Set data.ood=null and "
            f"data.sampler=shuffle, or take a method that does, such as colt_simclr."
        )


def needs_of(cfg: DictConfig, cls: Any) -> list[tuple[str, Needs]]:
    """What a method is made of, each part's name with its needs: wrappers or itself, then the base.

    Args:
        cfg: a run's config.
        cls: of the host's ``METHODS``.
    """
    name = str(cfg.method)
    parts = getattr(cls, "wrappers", lambda: [cls] if hasattr(cls, "needs_under") else [])()
    needs = [(name, part.needs_under(cfg)) for part in parts]
    base = getattr(cls, "base_name", None if parts else name)
    if base is None:
        return needs
    facts = facts_of(base)
    its = Needs(labels=facts.labels, views=facts.views, more_views=True, small_views=True)
    return [*needs, (name if not parts else base, its)]


def learns_from_labels(method: str) -> bool:
    """Whether a method, by its name in a config, learns from labels; False of an unknown one."""
    wrappers, base = split_name(method)
    if not wrappers and method in METHODS:
        return load_mixin(method).needs.labels
    return facts_of(base).labels


def _require_indexes(cfg: DictConfig, name: str) -> None:
    """solo-learn's DALI loader numbers each batch 0..B-1 unless told to carry the true indexes."""
    if OmegaConf.select(cfg, "data.format") != "dali":
        return
    if not OmegaConf.select(cfg, "dali.encode_indexes_into_labels"):
        raise UserError(
            f"{name} keeps a memory per image and needs true indexes, which data.format=dali "
            f"gives only with dali.encode_indexes_into_labels=true. Set it."
        )


def _require_views(cfg: DictConfig, name: str, needs: Needs) -> None:
    large = OmegaConf.select(cfg, "data.num_large_crops")
    small = OmegaConf.select(cfg, "data.num_small_crops") or 0
    fits = large in needs.numbers or (needs.more_views and (large or 0) > max(needs.numbers))
    if fits and (needs.small_views or not small):
        return
    takes = "needs" if needs.more_views else "takes exactly"
    views = f"large view{'s' * (max(needs.numbers) > 1)}"
    wanted = f"{' or '.join(map(str, needs.numbers))} {views} of each image"
    given = f"{large}"
    if not needs.small_views:
        wanted, given = f"{wanted} and no small ones", f"{large} large and {small} small"
    hint = needs.hint or f"Set num_crops of the augmentation blocks to {needs.numbers[-1]} in all."
    raise UserError(f"{name} {takes} {wanted}; the config's augmentations give {given}. {hint}")


def _require_sampler(cfg: DictConfig, name: str, samplers: tuple[str, ...]) -> None:
    """Without ``data.sampler`` it is ``shuffle``."""
    given = OmegaConf.select(cfg, "data.sampler") or "shuffle"
    given = given if isinstance(given, str) else given.get("name")
    if given not in samplers:
        raise UserError(
            f"{name} draws its images with sampler {' or '.join(map(repr, samplers))}; "
            f"data.sampler is {given!r}. Set data.sampler={samplers[0]}."
        )
