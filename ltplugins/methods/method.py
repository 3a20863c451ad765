# SPDX-License-Identifier: MIT
"""What every method of ours shares: typed ``method_kwargs``, and what it needs of the data.

A method is a mixin; the registry puts it before the host's ``BaseMomentumMethod`` or ``BaseMethod``
(``uses_momentum``), so that one file serves every host. Where a wrapper adds a term to a host
method, a method brings a training step of its own.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ltplugins.core.schema import parse
from ltplugins.methods.needs import Needs, check_method_needs

if TYPE_CHECKING:
    from ltplugins.host.builtin import BaseMomentumMethod as _Host
else:
    _Host = object  # the host's base class follows in the MRO


class Method(_Host):
    """Base of the mixins. A subclass sets the class variables and :meth:`setup_method`.

    A method with a classifier that its training really learns (the host's online one is a detached
    probe) sets ``own_classifier`` and defines :meth:`class_logits`; evaluations then score that
    classifier too. ``training_only`` are the prefixes of the state that its backbone and classifier
    do without at inference.
    """

    method_name: ClassVar[str]
    method_config: ClassVar[type]  # of the whole block method_kwargs
    uses_momentum: ClassVar[bool] = False
    needs: ClassVar[Needs] = Needs()
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
        check_method_needs(cfg, type(self))
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

    @classmethod
    def needs_under(cls, cfg: DictConfig) -> Needs:
        """Say what the method needs of the data under this config."""
        return cls.needs
