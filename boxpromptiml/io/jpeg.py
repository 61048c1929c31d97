"""How a JPEG file was compressed, and whether it seems to have been compressed before."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from boxpromptiml.records import GreyArray

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

_MODES = (  # row and column of the low frequencies, which have enough coefficients
    np.array([0, 1, 1, 0, 0, 1, 2, 2, 1, 2, 0, 3]),
    np.array([1, 0, 1, 2, 3, 2, 1, 0, 3, 2, 4, 0]),
)
_BINS = 20  # of the absolute value of a quantised coefficient
_MAX_BLOCKS = 8192
_MIN_EMPTY = 100  # coefficients that empty bins would hold: the lack of fewer means nothing
_HINT = 0.3  # how full the bins may be

Tables = Mapping[int, Sequence[int]]  # by number, row by row


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
            return compression_of(picture)
    except Exception:  # noqa: BLE001 (whatever a damaged header raises; `images` reports damage)
        return None


def compression_of(picture: Image.Image) -> Compression | None:
    """Compression settings of an opened JPEG, from its header; None for other formats."""
    tables = tables_of(picture)
    if not tables:
        return None
    sampling = JpegImagePlugin.get_sampling(picture)
    grey = picture.mode == "L"
    quality, standard = quality_of(tables)
    text = repr(sorted((number, tuple(table)) for number, table in tables.items()))
    kind = "grey" if grey else _SUBSAMPLING.get(sampling, "other")
    return Compression(quality, standard, hashlib.sha256(text.encode()).hexdigest()[:12], kind)


def tables_of(picture: Image.Image) -> Tables:
    """The quantisation tables that a JPEG uses, luminance first; empty for other formats.

    A file may hold more tables than its components name.
    """
    tables: Tables = getattr(picture, "quantization", {})
    used = dict.fromkeys(number for *_, number in getattr(picture, "layer", ()))
    return {number: tables[number] for number in used if number in tables}


def quality_of(tables: Tables) -> tuple[int, bool]:
    """Quality 1 to 100 of the closest IJG tables, luminance first; whether they are identical."""
    used = [list(table) for table in tables.values()][:2]
    expected = _standard_tables()[:, : len(used)]
    away = np.abs(expected - np.array(used)).sum(axis=(1, 2))
    best = int(away.argmin())
    return best + 1, bool(away[best] == 0)


def earlier_quality(luminance: GreyArray, table: Sequence[int]) -> int | None:
    """Quality of an earlier JPEG compression on the same grid, if its traces are clear.

    Coefficients that were multiples of a coarser step leave bins empty when they are quantised
    again (Lukas and Fridrich 2003, Estimation of primary quantization matrix in double compressed
    JPEG images). How full the bins would be is taken from the same picture shifted by four pixels,
    which breaks the grid (Fridrich et al. 2002). The steps tried are those of the IJG's tables.

    Args:
        luminance: (H, W) decoded luminance.
        table: (64,) luminance table of the file, row by row.

    Returns:
        The quality, about; None if no earlier one shows, which does not exclude it: a better or
        an equal quality, another grid or another size leave no such bins. None also for a table
        with a step of zero, which no encoder writes.
    """
    if not all(table):
        return None
    steps = np.array(table, np.float64).reshape(8, 8)[_MODES]
    found, usual = (_coefficients(part, steps) for part in (luminance, luminance[4:, 4:]))
    counts, expected = (
        np.stack([np.bincount(np.abs(mode), minlength=_BINS + 1)[: _BINS + 1] for mode in one.T])
        for one in (found, usual)
    )
    best: tuple[float, int] | None = None
    for quality in range(30, 96):
        earlier = _standard_tables()[quality - 1, 0].reshape(8, 8)[_MODES]
        empty = np.stack([_empty(q1, q2) for q1, q2 in zip(earlier, steps, strict=True)])
        would_be = int(expected[empty].sum())
        if would_be >= max(_MIN_EMPTY, 0.1 * expected[:, 1:].sum()):
            fullness = float(counts[empty].sum() / would_be)
            best = min(best or (1.0, 0), (fullness, quality))
    return best[1] if best is not None and best[0] < _HINT else None


def _coefficients(luminance: GreyArray, steps: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Quantised DCT coefficients (blocks, modes) of at most `_MAX_BLOCKS` blocks."""
    rows, columns = (side // 8 for side in luminance.shape)
    cut = luminance[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8)
    blocks = cut.swapaxes(1, 2).reshape(-1, 8, 8)
    blocks = blocks[:: max(1, len(blocks) // _MAX_BLOCKS)].astype(np.float64)
    place = np.arange(8)
    basis = np.cos(np.pi * np.outer(place, 2 * place + 1) / 16) / 2
    basis[0] /= np.sqrt(2)
    spectrum = basis @ blocks @ basis.T
    return np.rint(spectrum[:, *_MODES] / steps).astype(np.int64)


def _empty(earlier: int, later: float) -> npt.NDArray[np.bool_]:
    """Bins (`_BINS` + 1,), by absolute value, that multiples of the earlier step never reach."""
    multiples = np.arange(_BINS * later / earlier + 2) * earlier / later
    empty = np.ones(_BINS + 1, bool)
    for off in (-0.2, 0, 0.2):  # decoded pixels are rounded, which moves coefficients a little
        reached = np.rint(multiples + off).astype(np.int64)
        empty[reached[(reached >= 0) & (reached <= _BINS)]] = False
    return empty


def _standard_tables() -> npt.NDArray[np.int64]:
    """(100, 2, 64) luminance and chrominance tables of the IJG's library at quality 1 to 100."""
    base = np.array([_LUMINANCE.split(), _CHROMINANCE.split()], np.int64)
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((base * scale[:, None, None] + 50) // 100, 1, 255)
