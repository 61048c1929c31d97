"""What `boxpromptiml predict` writes."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from boxpromptiml.manifest import safe_name
from boxpromptiml.provenance import write_bytes, write_jsonl
from boxpromptiml.reporting.prediction_files import prob_to_png


class PredictionWriter(BasePredictionWriter):
    """Writes what `boxpromptiml predict` finds: prob/ID.png and predictions.jsonl.

    Args:
        out: Folder to write; predictions/ in the run's folder by default.
    """

    def __init__(self, out: Path | None = None) -> None:
        super().__init__("batch")
        self.out = out
        self._rows: list[dict[str, Any]] = []

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
        """Called after every batch."""
        found = zip(prediction["id"], prediction["prob"], prediction["image_score"], strict=True)
        for name, prob, score in found:
            file = safe_name(name)
            write_bytes(self._folder(trainer) / "prob" / f"{file}.png", prob_to_png(prob.numpy()))
            row = {"id": name, "name": file, "image_score": round(float(score), 6)}
            self._rows.append(row)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table; with several processes, one table a process."""
        suffix = f".{trainer.global_rank}" if trainer.world_size > 1 else ""
        write_jsonl(self._folder(trainer) / f"predictions{suffix}.jsonl", self._rows)

    def _folder(self, trainer: Trainer) -> Path:
        return self.out or Path(trainer.default_root_dir) / "predictions"
