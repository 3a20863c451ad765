# SPDX-License-Identifier: MIT
"""What is refused of a run's config as a whole, before anything of its data is looked up."""

from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.host.check import check_config
from ltplugins.methods.needs import check_method_needs
from ltplugins.methods.registry import split_name


def check_run(config: RunConfig) -> None:
    """Refuse a method that is none, or whose host, data and options do not fit together.

    Raises:
        UserError: with the key, what was expected, what came and the way out.
    """
    from ltplugins.host import METHODS

    _require_validation(config)
    _, base = split_name(config.method)
    check_config(config.host, base, config.data.drop_last)
    check_method_needs(config.host, METHODS[config.method])


def _require_validation(config: RunConfig) -> None:
    """Refuse an online kNN without images to vote on."""
    is_off = config.trainer.get("limit_val_batches") == 0
    if not config.knn_eval.enabled or (config.data.has_test_part and not is_off):
        return
    missing = "limit_val_batches is 0" if is_off else "data.val_path names none"
    way_out = "limit_val_batches" if is_off else "data.val_path"
    raise UserError(
        f"knn_eval.enabled: expected false where no image is validated ({missing}), got true. Set "
        f"{way_out}, or knn_eval.enabled=false and ltplugins evaluate afterwards."
    )
