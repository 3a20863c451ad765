# SPDX-License-Identifier: MIT
"""This package's messages on the terminal. Light: no torch, which takes seconds."""

import logging
import os
import sys
import warnings

from rich.logging import RichHandler

from ltplugins.core.console import make_console, printable

# What launchers call a process's number, in the order in which Lightning believes them.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


class _Plain(logging.Formatter):
    """Messages without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_up_logging() -> None:
    """Show this package's messages on the terminal, on the first process only."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `2>&-`; Lightning writes there too
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the end
    logger = logging.getLogger("ltplugins")
    if not logger.handlers:
        handler: logging.Handler
        if sys.stderr.isatty():
            console = make_console(stderr=True)
            handler = RichHandler(console=console, show_path=False, show_time=False)
            handler.setFormatter(_Plain("%(message)s"))
        else:  # the same words, without folding lines for a width that a file does not have
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(_Plain("%(levelname)-8s %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.INFO if _is_first() else logging.ERROR)
    # Hydra's logging set-up disables the loggers that exist when it runs.
    for name, existing in logging.root.manager.loggerDict.items():
        if name.split(".")[0] == "ltplugins" and isinstance(existing, logging.Logger):
            existing.disabled = False
    # Lightning's advertisements and device list say nothing that our start-up lines do not.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*DataLoader will create.*",  # a start says it in a line: training/announce.py
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*Checkpoint directory.*",
        # Of the balancing: it has a frozen network, and scores once, at the end.
        ".*in eval mode at the start of training.*",
        ".*have no `validation_step`.*",
        # They are of the global batch, equal on every rank: there is nothing to reduce.
        ".*recommended to use `self.log\\('train_gh_.*",
    ):
        warnings.filterwarnings("ignore", message=text)


def _is_first() -> bool:
    """Whether this process is the first of its launcher's, or the only one."""
    return next((os.environ[key] for key in _RANKS if key in os.environ), "0") == "0"
