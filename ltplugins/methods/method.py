# SPDX-License-Identifier: MIT
"""What every method of ours shares: typed ``method_kwargs``, and what it needs of the data.

A method is a mixin; the registry puts it before the host's ``BaseMomentumMethod`` or ``BaseMethod``
(``uses_momentum``), so that one file serves every host. Where a wrapper adds a term to a host
method, a method brings a training step of its own.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.methods.wrapper import refuse_dummy_indexes

if TYPE_CHECKING:
    from ltplugins.host.builtin import BaseMomentumMethod as _Host
else:
    _Host = object  # the host's base class follows in the MRO


class Method(_Host):
    """Base of the mixins. A subclass sets the class variables and :meth:`setup_method`.

    ``num_views`` is the number of large views that a step takes, no more and no fewer, or the
    numbers that it can take; small crops are refused. ``samplers`` are the values of
    ``data.sampler`` that fit, empty for any.

    A method with a classifier that its training really learns (the host's online one is a detached
    probe) sets ``own_classifier`` and defines :meth:`class_logits`; evaluations then score that
    classifier too. ``training_only`` are the prefixes of the state that its backbone and classifier
    do without at inference.
    """

    method_name: ClassVar[str]
    method_config: ClassVar[type]  # of the whole block method_kwargs
    uses_momentum: ClassVar[bool] = False
    needs_indexes: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    num_views: ClassVar[int | tuple[int, ...]] = 2
    samplers: ClassVar[tuple[str, ...]] = ()
    views_hint: ClassVar[str] = ""  # which augmentations to take, for the message
    own_classifier: ClassVar[bool] = False
    training_only: ClassVar[tuple[str, ...]] = ()

    def __init__(self, cfg: DictConfig) -> None:
        """Check the config, build the host's base, then the method.

        Raises:
            UserError: an unknown option or a wrong type; data that do not fit.
        """
        block = OmegaConf.select(cfg, "method_kwargs")
        plain = OmegaConf.to_container(block, resolve=True) if block is not None else None
        options: Any = parse(self.method_config, plain, "method_kwargs")  # type: ignore[arg-type]
        self._check_data(cfg)
        super().__init__(cfg)
        num_samples = OmegaConf.select(cfg, "data.num_samples")
        self.num_samples: int | None = None if num_samples is None else int(num_samples)
        self.setup_method(options)

    def setup_method(self, options: Any) -> None:
        """Build heads and state; the host's base is built, ``self.num_samples`` may be None."""
        raise NotImplementedError

    def class_logits(self, feats: Tensor) -> Tensor:
        """The own classifier's logits, as it is meant to be used at test time.

        Args:
            feats: Float[N D], of the backbone.

        Returns:
            Float[N C]; their softmax is what the classifier says.
        """
        raise NotImplementedError

    @classmethod
    def inference_config(cls, cfg: DictConfig) -> DictConfig:
        """The config without what only training needs, such as other files."""
        return cfg

    def views_needed(self, cfg: DictConfig) -> int | tuple[int, ...]:
        """The number of large views that a step takes under this config, or the numbers."""
        return self.num_views

    def _check_data(self, cfg: DictConfig) -> None:
        name = self.method_name
        if self.needs_indexes:
            refuse_dummy_indexes(cfg, name)
        if self.needs_labels and OmegaConf.select(cfg, "data.no_labels"):
            raise UserError(f"{name} learns from labels, and data.no_labels is true.")
        large = OmegaConf.select(cfg, "data.num_large_crops")
        small = OmegaConf.select(cfg, "data.num_small_crops") or 0
        needed = self.views_needed(cfg)
        numbers = needed if isinstance(needed, tuple) else (needed,)
        if large not in numbers or small:
            raise UserError(
                f"{name} takes exactly {' or '.join(map(str, numbers))} large "
                f"view{'s' * (max(numbers) > 1)} of each image and no small ones; the config's "
                f"augmentations give {large} large and {small} small.{self.views_hint}"
            )
        if self.samplers:
            require_sampler(cfg, name, self.samplers)


def require_sampler(cfg: DictConfig, name: str, samplers: tuple[str, ...]) -> None:
    """Refuse a config whose ``data.sampler`` is none of these; without one it is ``shuffle``.

    Raises:
        UserError: another sampler.
    """
    given = OmegaConf.select(cfg, "data.sampler") or "shuffle"
    given = given if isinstance(given, str) else given.get("name")
    if given not in samplers:
        raise UserError(
            f"{name} draws its images with sampler {' or '.join(map(repr, samplers))}; "
            f"data.sampler is {given!r}. Set data.sampler={samplers[0]}."
        )
