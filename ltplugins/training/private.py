# SPDX-License-Identifier: MIT
"""What our callbacks need of Lightning beyond its documented interface, looked up before any work.

To stop within an epoch and go on from there exactly takes the sums that Lightning has logged so
far, its count of batches, and its own handling of SIGTERM out of the way. It has no public names
for these; a version that calls them otherwise is refused here, in one line, and not in a night.
"""

from operator import attrgetter

import lightning.pytorch as pl

from ltplugins.core.errors import UserError

# Of a Trainer; by whom they are used.
NAMES = (
    "fit_loop.on_advance_end",  # signals
    "fit_loop.epoch_loop.on_advance_end",
    "fit_loop.epoch_loop.batch_progress.current.completed",
    "fit_loop.epoch_loop._should_accumulate",
    "fit_loop.epoch_loop._num_ready_batches_reached",
    "_signal_connector._sigterm_notifier_fn",
    "fit_loop.epoch_loop._results.update_metrics",  # within, faults.divergence
    "fit_loop.epoch_loop._results.items",
    "strategy.launcher",  # faults.ranks
)
_TESTED = "2.5 to 2.6"


def require_private(trainer: pl.Trainer) -> None:
    """Refuse a Lightning without these names.

    Raises:
        UserError: with its version, the name, and the versions that have it.
    """
    for name in NAMES:
        try:
            attrgetter(name)(trainer)
        except AttributeError:
            raise UserError(
                f"lightning {pl.__version__} has no {name} in its Trainer, which stopping and "
                f"going on within an epoch needs: expected a version that this was tested with, "
                f"{_TESTED}. Install one: pip install 'lightning<2.7'."
            ) from None
