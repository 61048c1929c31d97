"""Prediction files of `localize`, which `evaluate` and the report read back."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter

from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.io.files import (
    bounded_lines,
    csv_text,
    json_line,
    open_regular,
    sha256_file,
    write_bytes,
    write_jsonl,
    write_text,
)
from boxpromptiml.io.map_files import encode_map
from boxpromptiml.io.strict_json import parse_as
from boxpromptiml.records import ImageArray, ProbArray
from boxpromptiml.visualization.overlays import overlay

Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of predictions.jsonl and predictions.csv.

    Attributes:
        name: Name of the output files below prob/, mask/ and overlay/.
        path: The image, as given.
        height: Height of the stored image in pixels.
        width: Width of the stored image in pixels.
        image_score: Probability in [0, 1] that anything in the image is manipulated; calibrated if
            `calibrated` says so.
        threshold: A pixel is flagged where its probability is strictly above.
        area: Fraction of the pixels that are flagged.
        sha256: Hash of the image file.
        notes: Decisions of the decoder (alpha dropped, orientation not applied, ...).
        made_by: Fingerprint of weights and settings; empty in rows of earlier versions.
        fpr: False-alarm rate of `threshold`: mean fraction of flagged pixels in authentic images
            like those that the localizer was calibrated on; None where it is not known.
        image_threshold: At the same rate of authentic images, an image is flagged where
            `image_score` is strictly above; None where it is not known.
        calibrated: Whether `image_score` is calibrated.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    name: str
    path: str
    height: int
    width: int
    image_score: Fraction
    threshold: Fraction
    area: Fraction
    sha256: str
    notes: str
    made_by: str = ""
    fpr: Fraction | None = None
    image_threshold: Fraction | None = None
    calibrated: bool = False


@dataclass(frozen=True)
class Thresholds:
    """What an image is judged by; see `Prediction`."""

    threshold: float
    fpr: float | None = None
    image_threshold: float | None = None
    calibrated: bool = False


def write_prediction(
    out: Path,
    name: str,
    path: Path,
    image: ImageArray,
    info: images.ImageInfo,
    prob: ProbArray,
    score: float,
    limits: Thresholds,
    overlays: bool,
    made_by: str,
) -> Prediction:
    """Write map, mask and overlay of one image into a folder of `localize`.

    Args:
        out: The folder.
        name: Names the files below prob/, mask/ and overlay/, without ending.
        path: The image's file, for the row.
        image: (H, W, 3) RGB.
        info: Facts about the file, for the row.
        prob: (H, W) in [0, 1], at the stored size.
        score: Image score in [0, 1].
        limits: The thresholds for pixels and images.
        overlays: Whether to write the overlay.
        made_by: Fingerprint of weights and settings; a rerun keeps rows of the same.

    Returns:
        The row for the table.
    """
    flagged = prob > limits.threshold
    write_bytes(out / "prob" / f"{name}.png", encode_map(prob))
    images.write_png(out / "mask" / f"{name}.png", flagged.view(np.uint8) * np.uint8(255))
    if overlays:
        drawn = overlay(image, prob, (), limits.threshold)
        images.write_jpeg(out / "overlay" / f"{name}.jpg", drawn, 90, info.orientation)
    return Prediction(
        name=name,
        path=str(path),
        height=image.shape[0],
        width=image.shape[1],
        image_score=round(score, 6),
        area=round(float(flagged.mean()), 6),
        sha256=info.sha256,
        notes="; ".join(info.notes),
        made_by=made_by,
        **asdict(limits),
    )


class PredictionTable:
    """The rows of an output folder, of earlier runs and of this one.

    A row is appended to predictions.jsonl when its files are written, so that a killed job loses
    nothing. On leaving the block predictions.jsonl is rewritten with one row per name, and so is
    predictions.csv, without cells that a spreadsheet would run as a formula.

    Args:
        out: The output folder; one job at a time may use it.
        kept: Rows of earlier runs to keep.
    """

    def __init__(self, out: Path, kept: Iterable[Prediction]) -> None:
        self._path = out / "predictions.jsonl"
        self._rows = {row.name: row for row in kept}

    def __enter__(self) -> Self:
        self._write()
        self._stream = self._path.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._write()

    def append(self, row: Prediction) -> None:
        """Add a row to the table and, at once, to the file."""
        self._rows[row.name] = row
        self._stream.write(json_line(asdict(row)))
        self._stream.flush()

    def remove_changed(self, rejected: Mapping[str, Path]) -> None:
        """Remove rows and files of earlier runs that are of other images than lie there now.

        Of images that are missing or cannot be opened they stay: a disk may be away for a while.

        Args:
            rejected: Images that could not be localized, by name.
        """
        for name, path in rejected.items():
            row = self._rows.get(name)
            with suppress(OSError):
                if row is not None and sha256_file(path) != row.sha256:
                    del self._rows[name]
                    for file in (f"prob/{name}.png", f"mask/{name}.png", f"overlay/{name}.jpg"):
                        (self._path.parent / file).unlink(missing_ok=True)

    def _write(self) -> None:
        rows = [asdict(row) for row in self._rows.values()]
        write_jsonl(self._path, rows)
        lines = [list(row.values()) for row in rows]
        text = csv_text([field.name for field in fields(Prediction)], lines)
        write_text(self._path.with_suffix(".csv"), text)


def is_whole(path: Path) -> bool:
    """Whether a PNG or JPEG of ours is a file with its end: it was not cut, emptied or linked."""
    try:
        with open_regular(path) as stream:
            stream.seek(-2, os.SEEK_END)
            return not path.is_symlink() and stream.read() in (b"\x60\x82", b"\xff\xd9")
    except OSError:
        return False


def read_rows(out: Path) -> dict[str, Prediction]:
    """Read rows of earlier runs by name, the last of each name, whose map still exists.

    Invalid rows, such as a half-written one of a killed job, are skipped; their images are
    localized again.

    Raises:
        UserError: If a line is far longer than any row.
    """
    path = out / "predictions.jsonl"
    if not path.is_file():
        return {}
    rows: dict[str, Prediction] = {}
    with path.open("rb") as stream:
        for line in bounded_lines(stream, path):
            try:
                row = parse_as(_ROW, line.decode(), str(path), file_names=True)
            except (UserError, UnicodeDecodeError):
                continue
            with suppress(OSError):  # such as a name that is too long for a file
                if _is_inside(row.name) and (out / "prob" / f"{row.name}.png").is_file():
                    rows[row.name] = row
    return rows


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)  # of `./a`, a second name for the files of `a`, it makes `a`
    inside = bool(path.parts) and "\0" not in name and not ({"..", "/"} & set(path.parts))
    return inside and path.as_posix() == name


_ROW = TypeAdapter(Prediction)
