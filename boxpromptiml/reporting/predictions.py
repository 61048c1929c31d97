"""The files that a prediction consists of; `evaluate` and the report read them back."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from boxpromptiml import images
from boxpromptiml.manifest import safe_name
from boxpromptiml.provenance import write_bytes, write_jsonl, write_text
from boxpromptiml.records import ImageArray, ProbArray
from boxpromptiml.reporting.evaluation import csv_text
from boxpromptiml.reporting.overlays import overlay


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of predictions.jsonl and predictions.csv.

    Attributes:
        name: Of the output files, below prob/, mask/ and overlay/.
        path: The image, as it was given.
        height: Of the stored image, in pixels.
        width: Likewise.
        image_score: Probability in [0, 1] that anything in the image is manipulated.
        threshold: A pixel is flagged where its probability is strictly above.
        area: Share of the pixels that are flagged.
        sha256: Of the image file.
        notes: What the decoder had to decide (alpha dropped, orientation not applied, ...).
    """

    name: str
    path: str
    height: int
    width: int
    image_score: float
    threshold: float
    area: float
    sha256: str
    notes: str


def prob_to_png(prob: ProbArray) -> bytes:
    """A probability map (H, W) as 8-bit grey PNG: level = round(255 prob)."""
    return images.encode_png(np.round(prob * 255).astype(np.uint8))


def write_prediction(
    out: Path,
    name: str,
    path: Path,
    image: ImageArray,
    info: images.ImageInfo,
    prob: ProbArray,
    score: float,
    threshold: float,
    overlays: bool,
) -> Prediction:
    """Write the files of one image (H, W, 3) and return its row."""
    flagged = prob > threshold
    write_bytes(out / "prob" / f"{name}.png", prob_to_png(prob))
    images.write_png(out / "mask" / f"{name}.png", flagged.astype(np.uint8) * 255)
    if overlays:
        images.write_jpeg(out / "overlay" / f"{name}.jpg", overlay(image, prob, (), threshold), 90)
    return Prediction(
        name=name,
        path=str(path),
        height=image.shape[0],
        width=image.shape[1],
        image_score=round(score, 6),
        threshold=threshold,
        area=round(float(flagged.mean()), 6),
        sha256=info.sha256,
        notes="; ".join(info.notes),
    )


def write_tables(out: Path, predictions: Iterable[Prediction]) -> None:
    """predictions.jsonl, and predictions.csv with cells that no spreadsheet takes for a formula."""
    rows = [asdict(prediction) for prediction in predictions]
    write_jsonl(out / "predictions.jsonl", rows)
    lines = [list(row.values()) for row in rows]
    write_text(out / "predictions.csv", csv_text(list(Prediction.__dataclass_fields__), lines))


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
