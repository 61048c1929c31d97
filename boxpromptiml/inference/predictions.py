"""The files that a prediction consists of; `evaluate` and the report read them back."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from boxpromptiml.io import images
from boxpromptiml.io.files import csv_text, write_bytes, write_jsonl, write_text
from boxpromptiml.records import ImageArray, ProbArray
from boxpromptiml.visualization.overlays import overlay


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
