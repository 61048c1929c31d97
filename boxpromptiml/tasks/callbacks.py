"""Callbacks and checkpoint files of every training run."""

from math import isnan
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.errors import UserError
from boxpromptiml.io.files import refuse_address, remove_temporaries, write_json
from boxpromptiml.io.outputs import CHECKPOINT, METRICS
from boxpromptiml.io.weights import load_weights, save_checkpoint
from boxpromptiml.tasks.monitor import refuse_uncomputable
from boxpromptiml.tasks.numeric import finite_weights
from boxpromptiml.tasks.run_folder import lock_folder, own_state
from boxpromptiml.tasks.stop_signals import StopTogether

_INTERRUPTED = "interrupted"


class GuardedCheckpoint(ModelCheckpoint):
    """Saves the best checkpoint by a validation score, and last.ckpt for resuming.

    Both are written to checkpoints/ in the run's folder. last.ckpt is always the end of the last
    complete epoch: resumed from it, `fit` ends with exactly the weights of an uninterrupted run. A
    run interrupted within an epoch (SIGTERM, Ctrl-C, an exception) also leaves interrupted.ckpt,
    which resumes within the epoch; a diverged run saves nothing.

    Only one training at a time uses the folder. Paths that a checkpoint holds are not trusted: on
    resuming, only files of this folder count as its earlier checkpoints.

    Args:
        monitor: Validation score that selects the best checkpoint.
        mode: `max` if a higher score is better, else `min`.
        filename: Name of the best checkpoint, without its suffix.
        save_top_k: Number of best checkpoints to keep.
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
        self._steps_in_last = 0  # or in the checkpoint that it was resumed from
        self._lock: FileLock | None = None
        self._signals = StopTogether()
        self.started_at: int | None = None  # step at which this training began

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose and lock the folder, and remove incomplete files of a killed run.

        Raises:
            UserError: If the run would end before its first validation, another training uses the
                folder, or another program's checkpoints are in the way.
        """
        every = trainer.check_val_every_n_epoch or 1
        short = trainer.max_epochs is not None and 0 < trainer.max_epochs < every
        if stage == "fit" and short and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise UserError(
                f"{trainer.max_epochs} epochs end before the first validation; set "
                f"--trainer.check_val_every_n_epoch={trainer.max_epochs} or less"
            )
        self.dirpath = self.dirpath or str(Path(trainer.default_root_dir) / "checkpoints")
        if stage == "fit" and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            for name in (self.filename or "best", self.CHECKPOINT_NAME_LAST, _INTERRUPTED):
                CHECKPOINT.require_ours(self._path(name))
            self._lock = lock_folder(Path(self.dirpath))
            remove_temporaries(Path(self.dirpath))
        super().setup(trainer, pl_module, stage)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let other trainings use the folder."""
        super().teardown(trainer, pl_module, stage)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the monitored score can be computed from the validation images.

        Raises:
            UserError: If it cannot.
        """
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, LocalizationData) and trainer.limit_val_batches and self.monitor:
            others = not type(pl_module).__module__.startswith("boxpromptiml.")
            refuse_uncomputable(self.monitor, data.val_sources, others)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals from Lightning, if there are several processes."""
        self._signals.listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there is something to train; take over the signals if not done before."""
        super().on_train_start(trainer, pl_module)
        self._signals.listen(trainer)
        self.started_at = self._steps_in_last = trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Stop all processes here if one of them has received a signal."""
        self._signals.stop(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Replace all paths in the states of checkpoint callbacks by paths in their own folders."""
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                states = checkpoint["callbacks"]
                if callback.state_key in states:
                    states[callback.state_key] = own_state(callback, states[callback.state_key])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save last.ckpt (Lightning's `save_last` only copies the best checkpoint)."""
        super().on_train_epoch_end(trainer, pl_module)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self._path(self.CHECKPOINT_NAME_LAST), weights_only=False)
            self._steps_in_last = trainer.global_step
            if trainer.is_global_zero:
                self._path(_INTERRUPTED).unlink(missing_ok=True)  # last.ckpt is further now

    def _path(self, name: str) -> Path:
        return Path(str(self.dirpath)) / f"{name}.ckpt"

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save interrupted.ckpt if the weights are finite and newer than last.ckpt.

        With several processes only if all of them stopped at the same batch: saving is collective.
        """
        if (
            trainer.state.fn == TrainerFn.FITTING
            and trainer.training  # in validation the averaged weights may stand in for the others
            and trainer.global_step > self._steps_in_last
            and not trainer.fast_dev_run  # type: ignore[attr-defined]
            and (self._signals.agreed or trainer.world_size == 1)
            and not isinstance(exception, UserError)  # diverged, or without its images
            and finite_weights(pl_module)
        ):
            trainer.save_checkpoint(self._path(_INTERRUPTED), weights_only=False)
        self._unlock()


class MetricsFile(Callback):
    """Writes the scores of the last validation or test to `metrics_<stage>.json`.

    `f1_curve` is a list of (threshold, mean F1 of the manipulated images).
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to replace a file of somebody else.

        Raises:
            UserError: If there is one.
        """
        if stage in ("fit", "validate", "test"):
            METRICS.require_ours(_metrics_path(trainer, "test" if stage == "test" else "val"))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write metrics_val.json, except after the sanity check."""
        if not trainer.sanity_checking:
            self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write metrics_test.json."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        path = _metrics_path(trainer, stage)
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
        write_json(path, scores)


def _metrics_path(trainer: Trainer, stage: str) -> Path:
    folder = Path(trainer.log_dir or trainer.default_root_dir)  # asks all processes
    return folder / f"metrics_{stage}.json"


class LocalCheckpointIO(CheckpointIO):
    """Crash-safe checkpoint files for Lightning: `Trainer(plugins=LocalCheckpointIO())`.

    Lightning's own plugin writes to $TMPDIR first; if that is another file system, a killed run
    leaves half a checkpoint under the final name. It also never calls fsync, and opens addresses.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: None = None
    ) -> None:
        """Write to a temporary file in the same folder, fsync it, move it into place.

        A killed process leaves at most a hidden `.tmp` file, which the next `fit` deletes.

        Raises:
            TypeError: If `storage_options` are given; they are for addresses.
            UserError: If the path is an address.
            OSError: If the disk is full or not writable; an existing file is kept.
        """
        if storage_options is not None:
            raise TypeError("storage_options are for addresses; checkpoints are local files")
        refuse_address(path)
        save_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint onto the CPU, always as data only, whatever `weights_only` says.

        Raises:
            UserError: If the file is missing, damaged or holds code (see `load_weights`).
        """
        return load_weights(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint that is no longer among the best `save_top_k`."""
        Path(path).unlink(missing_ok=True)
