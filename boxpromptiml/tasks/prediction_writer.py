"""Writes the output files of `boxpromptiml predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import distributed

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import write_bytes, write_jsonl
from boxpromptiml.io.map_files import encode_map
from boxpromptiml.io.outputs import PREDICTED
from boxpromptiml.manifests.manifest import safe_name
from boxpromptiml.tasks.run_folder import lock_folder

_SHOWN = 5


class PredictionWriter(BasePredictionWriter):
    """Writes the maps of `boxpromptiml predict` to prob/ID.png and a table, predictions.jsonl.

    The table is written last, by the first process, in the order of the manifests, and only if
    every image that can be read has its map, so that a killed process does not go unnoticed.

    Args:
        out: Output folder; predictions/ in the run's folder by default.
    """

    def __init__(self, out: Path | None = None) -> None:
        super().__init__("batch")
        self.out = out
        self._rows: dict[str, dict[str, Any] | None] = {}  # by id; None: cannot be read
        self._lock: FileLock | None = None

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the maps of a batch; of images that could not be read, remove earlier ones."""
        columns = [prediction[name] for name in ("id", "prob", "image_score")]
        unread = prediction.get("lost", [False] * len(columns[0]))
        for name, prob, score, lost in zip(*columns, unread, strict=True):
            file = safe_name(name)
            path = self._folder(trainer) / "prob" / f"{file}.png"
            if lost:
                path.unlink(missing_ok=True)
                self._rows[name] = None
                continue
            write_bytes(path, encode_map(prob.numpy()))
            self._rows[name] = {"id": name, "name": file, "image_score": round(float(score), 6)}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lock the folder, before another job's files in it are replaced.

        Raises:
            UserError: If another job is writing there, or something of somebody else lies there.
        """
        if stage == "predict":
            PREDICTED.mark(self._folder(trainer))  # by every process: any may be the first to write
            if trainer.is_global_zero:
                self._lock = lock_folder(self._folder(trainer))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove an earlier table, so that none is left if this job fails."""
        self._rows = {}
        if trainer.is_global_zero:
            (self._folder(trainer) / "predictions.jsonl").unlink(missing_ok=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect the rows of all processes and write the table.

        Raises:
            UserError: If another process ended too early, or an image has no map; if it only
                cannot be read, after the table of the others was written.
        """
        rows = self._all_rows(trainer)
        if not trainer.is_global_zero:
            return
        ids = _ids(trainer)
        missing = [name for name in ids if name not in rows]
        loader: Any = trainer.predict_dataloaders
        if missing and sum(trainer.num_predict_batches) == len(loader):  # not cut short on purpose
            raise UserError(_incomplete(missing, self._folder(trainer)))
        table = [row for name in ids if (row := rows.get(name))]
        write_jsonl(self._folder(trainer) / "predictions.jsonl", table)
        if unread := [name for name in ids if name in rows and rows[name] is None]:
            raise UserError(
                f"{len(unread)} images could not be read, as said above: {_shown(unread)}; "
                f"{self._folder(trainer)} holds the maps of the other {len(table)}"
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let other jobs use the folder."""
        self._unlock()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let other jobs use the folder."""
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _all_rows(self, trainer: Trainer) -> dict[str, dict[str, Any] | None]:
        """The rows of all processes on the first one, none on the others."""
        if trainer.world_size == 1:
            return self._rows
        parts: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
        try:
            distributed.gather_object(self._rows, parts)
        except RuntimeError as error:
            prob = self._folder(trainer) / "prob"
            missing = [n for n in _ids(trainer) if not (prob / f"{safe_name(n)}.png").exists()]
            raise UserError(
                "another process ended too early (killed, for want of memory?): "
                + _incomplete(missing, self._folder(trainer))
            ) from error
        return {name: row for part in parts or () for name, row in part.items()}

    def _folder(self, trainer: Trainer) -> Path:
        return self.out or Path(trainer.default_root_dir) / "predictions"


def _ids(trainer: Trainer) -> list[str]:
    """Ids of all images to predict, in the order of the manifests."""
    loader: Any = trainer.predict_dataloaders  # LocalizationData's
    return [source.sample.id for source in loader.dataset.sources]


def _incomplete(missing: Sequence[str], folder: Path) -> str:
    without = f"{len(missing)} images without a map: {_shown(missing)}"
    return f"{folder} is left without predictions.jsonl, {without}"


def _shown(ids: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in ids[:_SHOWN])
