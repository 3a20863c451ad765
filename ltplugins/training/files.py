# SPDX-License-Identifier: MIT
"""How Lightning writes and reads the checkpoints of a run: sealed, beside their target, whole."""

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO

from ltplugins.core.errors import UserError
from ltplugins.runs.checkpoint import read_checkpoint
from ltplugins.runs.seal import save_sealed


class SealedFiles(CheckpointIO):
    """Lightning's own writes to ``$TMPDIR`` first, which may be small or another disk."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write the file; of several processes Lightning calls the first one's alone.

        Raises:
            UserError: the disk is full or not writable; the file that was there is kept.
        """
        path = Path(path)
        try:
            save_sealed(checkpoint, path)
        except OSError as error:
            kept = "The one that was there is kept" if path.exists() else "There was none before"
            raise UserError(
                f"{path} cannot be written: {error.strerror}. {kept}. Make room or give another "
                f"output_dir; the same command then goes on from the last checkpoint that is there."
            ) from error

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a file on the CPU, tensors and plain values alone.

        Raises:
            UserError: it is damaged, or no checkpoint.
        """
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a file, as a user's own ModelCheckpoint asks for."""
        Path(path).unlink(missing_ok=True)
