"""Callbacks of every training run."""

from math import isnan
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import atomic_writer, refuse_address, remove_temporaries, write_json
from boxpromptiml.io.weights import load_weights
from boxpromptiml.tasks.base import DivergedError, finite_weights

_INTERRUPTED = "interrupted"


class GuardedCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint on validation, and last.ckpt to go on from.

    They lie in the run's folder, in checkpoints/. last.ckpt is always the end of the last complete
    epoch: `fit --ckpt_path` with it ends with the very weights of a run that never stopped. A run
    interrupted within an epoch (SIGTERM, Ctrl-C, an exception) also leaves interrupted.ckpt, to
    use or to look at; a diverged one leaves nothing new.

    Args:
        monitor: The validation score to choose by; never a test score.
        mode: Whether more is better.
        filename: Of the best checkpoint.
        save_top_k: How many of the best to keep.
    """

    def __init__(
        self,
        monitor: str = "val/pixel_f1",
        mode: str = "max",
        filename: str = "best",
        save_top_k: int = 1,
    ) -> None:
        super().__init__(
            monitor=monitor,
            mode=mode,
            filename=filename,
            save_top_k=save_top_k,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self._steps_in_last = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder; refuse a run that would end before its first validation."""
        every = trainer.check_val_every_n_epoch or 1
        short = trainer.max_epochs is not None and 0 < trainer.max_epochs < every
        if stage == "fit" and short and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise UserError(
                f"{trainer.max_epochs} epochs end before the first validation; set "
                f"--trainer.check_val_every_n_epoch={trainer.max_epochs} or less"
            )
        self.dirpath = self.dirpath or str(Path(trainer.default_root_dir) / "checkpoints")
        if stage == "fit" and trainer.is_global_zero:
            remove_temporaries(Path(self.dirpath))  # of a run killed while it saved
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save last.ckpt; Lightning's own `save_last` only follows the best one."""
        super().on_train_epoch_end(trainer, pl_module)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self._path(self.CHECKPOINT_NAME_LAST))
            self._steps_in_last = trainer.global_step
            if trainer.is_global_zero:
                self._path(_INTERRUPTED).unlink(missing_ok=True)  # last.ckpt is further now

    def _path(self, name: str) -> Path:
        return Path(str(self.dirpath)) / f"{name}.ckpt"

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save interrupted.ckpt, unless there is nothing sound to save.

        With several processes only for signals, which reach all of them: saving waits for everyone.
        """
        everywhere = isinstance(exception, (KeyboardInterrupt, SIGTERMException))
        if (
            trainer.state.fn == TrainerFn.FITTING
            and trainer.training  # in validation the averaged weights may stand in for the others
            and trainer.global_step > self._steps_in_last
            and not trainer.fast_dev_run  # type: ignore[attr-defined]
            and (everywhere or trainer.world_size == 1)
            and not isinstance(exception, DivergedError)
            and finite_weights(pl_module)
        ):
            trainer.save_checkpoint(self._path(_INTERRUPTED))


class MetricsFile(Callback):
    """Writes the scores of the last validation or test to `metrics_<stage>.json`.

    `f1_curve` in it is a list of (threshold, mean F1 of the manipulated images).
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After every validation but the sanity check."""
        if not trainer.sanity_checking:
            self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the test."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # asks all processes
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        scores: dict[str, Any] = {
            name.removeprefix(f"{stage}/"): None if value.isnan() else float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(f"{stage}/")
        }
        curve = getattr(pl_module, "f1_curves", {}).get(stage, [])
        scores["epoch"] = trainer.current_epoch
        scores["f1_curve"] = [point for point in curve if not isnan(point[1])]
        write_json(folder / f"metrics_{stage}.json", scores)


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
