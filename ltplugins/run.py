# SPDX-License-Identifier: MIT
"""``python -m ltplugins.run main_pretrain.py ...``: a solo-learn script with our names registered.

Everything after the file's name is the script's own command line.
"""

import functools
import logging
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra

from ltplugins.core.errors import UserError
from ltplugins.host.detect import ENV

# Run with -m this module is called __main__, and only our own loggers are shown.
log = logging.getLogger("ltplugins.run")


def main() -> None:
    """Register our methods, mend what is broken in the host, run the script as ``__main__``."""
    from ltplugins.core.door import guarded
    from ltplugins.stages.logs import set_up_logging

    set_up_logging()
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        got = sys.argv[1] if len(sys.argv) > 1 else "nothing"
        guarded(lambda: _refuse(got))
    script = Path(sys.argv[1])
    # A script's own folder comes first on the path, as with `python script.py`.
    sys.path.insert(0, str(script.resolve().parent))
    sys.argv = sys.argv[1:]

    def work() -> None:
        # Without solo-learn there is no script of its to run: the host's own error says so.
        os.environ[ENV] = "solo"
        from ltplugins.host import prepare

        log.info("%s", prepare().describe())
        from ltplugins.host.mains import our_data

        def shown(work: Callable[[], Any]) -> Any:
            set_up_logging()  # Hydra, in the script, has disabled the loggers that were there
            return guarded(work)

        _guard_tasks(shown)
        with our_data(shown, "ltplugins.run"):
            runpy.run_path(str(script), run_name="__main__")

    guarded(work)


def _guard_tasks(shown: Callable[[Callable[[], Any]], Any]) -> None:
    """Let an error of the user's end the script's ``@hydra.main`` task as it ends our own stages.

    Hydra itself would print "Error executing job" and the end of a traceback, and exit with 1.
    """
    real: Any = hydra.main

    def main(*args: Any, **kwargs: Any) -> Any:
        decorate = real(*args, **kwargs)

        def wrap(task: Callable[[Any], Any]) -> Any:
            # Hydra looks for the script's file behind __wrapped__.
            @functools.wraps(task)
            def guarded_task(cfg: Any) -> Any:
                return shown(lambda: task(cfg))

            return decorate(guarded_task)

        return wrap

    hydra.main = main


def _refuse(got: str) -> None:
    raise UserError(
        f"usage: python -m ltplugins.run SCRIPT [ARGUMENTS]. Expected the path of one of "
        f"solo-learn's scripts (main_pretrain.py), got {got}."
    )


if __name__ == "__main__":
    main()
