"""Compression settings of a JPEG file, from its header alone."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

# ITU-T T.81, tables K.1 (luminance) and K.2 (chrominance), row by row.
_LUMINANCE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 "
    "62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 "
    "98 112 100 103 99"
)
_CHROMINANCE = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 "
    "99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 "
    "99 99"
)
_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}

Tables = Mapping[int, Sequence[int]]  # as Pillow gives them: by number, row by row


class Compression(NamedTuple):
    """Compression settings of a JPEG.

    Attributes:
        quality: 1 to 100, by the closest IJG tables.
        standard: Whether the file has exactly these tables; Photoshop and cameras have their own.
        tables: Short hash of the tables.
        subsampling: Chroma subsampling; `grey` without chroma, `other` for rare kinds.
    """

    quality: int
    standard: bool
    tables: str
    subsampling: str


def compression(path: Path) -> Compression | None:
    """Compression settings of a JPEG; None if unknown. Call it only with files that were probed."""
    try:
        with Image.open(path, formats=("JPEG",)) as picture:
            tables: Tables = getattr(picture, "quantization", {})
            sampling = JpegImagePlugin.get_sampling(picture)
            grey = picture.mode == "L"
    except Exception:  # noqa: BLE001 (whatever a damaged header raises; `images` reports damage)
        return None
    if not tables:
        return None
    quality, standard = quality_of(tables)
    text = repr(sorted((number, tuple(table)) for number, table in tables.items()))
    kind = "grey" if grey else _SUBSAMPLING.get(sampling, "other")
    return Compression(quality, standard, hashlib.sha256(text.encode()).hexdigest()[:12], kind)


def quality_of(tables: Tables) -> tuple[int, bool]:
    """Quality 1 to 100 of the closest IJG tables, and whether they are identical."""
    used = [list(tables[number]) for number in sorted(tables)[:2]]
    expected = _standard_tables()[:, : len(used)]
    away = np.abs(expected - np.array(used)).sum(axis=(1, 2))
    best = int(away.argmin())
    return best + 1, bool(away[best] == 0)


def _standard_tables() -> npt.NDArray[np.int64]:
    """(100, 2, 64) luminance and chrominance tables of the IJG's library at quality 1 to 100."""
    base = np.array([_LUMINANCE.split(), _CHROMINANCE.split()], np.int64)
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((base * scale[:, None, None] + 50) // 100, 1, 255)
