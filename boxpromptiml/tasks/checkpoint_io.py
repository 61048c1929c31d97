"""Checkpoints on disk: written whole or not at all, read as data only."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from boxpromptiml.io.files import atomic_writer
from boxpromptiml.io.local_files import refuse_address
from boxpromptiml.io.weights import load_weights


class LocalCheckpointIO(CheckpointIO):
    """What Lightning writes and reads checkpoints through: `Trainer(plugins=LocalCheckpointIO())`.

    Lightning's own goes by way of a temporary file in $TMPDIR: on another file system a killed run
    leaves half a checkpoint under the final name. It never calls fsync, and it opens addresses.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: None = None,
    ) -> None:
        """Write beside the final name, fsync, move into place.

        A killed process leaves at most a hidden `.tmp` file, which the next `fit` deletes.

        Raises:
            UserError: If the path is an address.
            OSError: If the disk is full or not writable; the file of before stays.
        """
        if storage_options is not None:
            raise TypeError("storage_options are for addresses; checkpoints are local files")
        refuse_address(path)
        try:
            with atomic_writer(Path(path)) as stream:
                torch.save(checkpoint, stream)
        except RuntimeError as error:
            if isinstance(cause := error.__context__, OSError):  # PyTorch's writer hides it
                raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: object = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read onto the CPU, as data only whatever `weights_only` says.

        Raises:
            UserError: See `load_weights`.
        """
        return load_weights(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a file that `save_top_k` has no room for any more."""
        Path(path).unlink(missing_ok=True)
