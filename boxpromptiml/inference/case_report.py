"""`localize --report`: one page about a few images, for readers who are no engineers.

One HTML file that needs no server, no script and no network. All sentences are in the template.
Whatever comes from the images is untrusted and escaped.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.geometry import resize_by_area, shrink
from boxpromptiml.inference.calibration import Calibration
from boxpromptiml.inference.predictions import Prediction
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io.file_details import FileDetails
from boxpromptiml.io.files import write_text
from boxpromptiml.io.images import ImageInfo, encode_jpeg
from boxpromptiml.io.map_files import read_map
from boxpromptiml.io.orientation import upright_image
from boxpromptiml.io.pages import page_environment
from boxpromptiml.io.progress import track
from boxpromptiml.io.sandbox import FileDecoder
from boxpromptiml.records import ImageArray, MaskArray, ProbArray
from boxpromptiml.visualization.overlays import heat

MAX_IMAGES = 100  # of one page; a browser has to hold their pictures
_SIDE, _QUALITY = 1000, 85  # of the pictures
_MIN_AREA = 5e-4  # of the image; smaller specks are not marked
_MAX_REGIONS = 12
_FPR = 0.03  # of the images that may be marked, where --fpr does not say otherwise


@dataclass(frozen=True)
class Region:
    """A marked region.

    Attributes:
        fraction: Of the image that it covers.
        score: Mean probability of its pixels.
        outline: Its contours, as a path of SVG in pixels of the picture.
        label: (x, y) of its number in the picture.
    """

    fraction: float
    score: float
    outline: str
    label: tuple[int, int]


@dataclass(frozen=True)
class ImageCase:
    """What the page says about one image.

    Attributes:
        row: Its prediction.
        info: Facts about the decoded file.
        details: What the file says about itself.
        picture: The upright image, as a data URI.
        map: Its map in colours, likewise.
        thumbnail: The embedded preview, likewise; empty if there is none.
        size: (h, w) of the pictures.
        suspected: Whether its score is above the limit below which nothing is marked.
        regions: The marked ones, most evidence first.
        more: Number of further regions.
    """

    row: Prediction
    info: ImageInfo
    details: FileDetails
    picture: str
    map: str
    thumbnail: str
    size: tuple[int, int]
    suspected: bool
    regions: tuple[Region, ...]
    more: int


@dataclass(frozen=True)
class Limit:
    """The limit up to which the page marks nothing on an image.

    Attributes:
        score: Image score that must be exceeded.
        fpr: Fraction of authentic images whose score is above it.
    """

    score: float
    fpr: float


def write_case_report(
    out: Path,
    rows: Sequence[Prediction],
    spec: ModelSpec,
    weights: dict[str, str],
    decode: FileDecoder,
    rejected: int,
) -> Path:
    """Write case.html into a folder of `localize`.

    Args:
        out: The folder.
        rows: Predictions of this job; the page shows those with the highest scores.
        spec: The localizer's.
        weights: Facts about its file and how it ran, as text by name.
        decode: Decodes an image.
        rejected: Number of inputs that could not be localized.

    Raises:
        RejectedInput: If a map of the folder cannot be read.
    """
    ranked = sorted(rows, key=lambda row: row.image_score, reverse=True)
    cases, lost = [], []
    for row in track(ranked[:MAX_IMAGES], "reporting", min(len(ranked), MAX_IMAGES)):
        try:
            image, info = decode(row.path)
            prob = read_map(out / "prob" / f"{row.name}.png").prob
        except RejectedInput:  # it has gone since it was localized
            lost.append(row)
            continue
        if info.sha256 == row.sha256 and prob.shape == info.size:
            cases.append(_case(row, spec, image, info, prob, decode))
        else:
            lost.append(row)
    path = out / "case.html"
    page = _environment().get_template("case_report.html.jinja").render(
        cases=cases,
        lost=lost,
        lower=len(ranked[MAX_IMAGES:]),
        rejected=rejected,
        spec=spec,
        calibration=spec.calibration,
        limit=_limit(spec, rows[0]) if rows else None,
        weights=weights,
        version=version("boxpromptiml"),
        made=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        colours=[_css(colour) for colour in heat(np.linspace(0, 1, 9, dtype=np.float32))],
    )  # fmt: skip
    write_text(path, page)
    return path


def marking_limit(calibration: Calibration | None) -> Limit | None:
    """The limit for 3 % of the authentic images, else the strictest one known; None if none is.

    Three percent, lest any kind of untouched photograph is marked in more than five of a hundred
    (docs/decisions/031-case-report.md).
    """
    if calibration is None or not calibration.image_thresholds:
        return None
    try:
        return Limit(calibration.image_threshold(_FPR), _FPR)
    except UserError:
        fpr, score = calibration.image_thresholds[0]
        return Limit(score, fpr)


def _limit(spec: ModelSpec, row: Prediction) -> Limit | None:
    """The limit that --fpr asks for, else the usual one."""
    if row.image_threshold is not None and row.fpr is not None:
        return Limit(row.image_threshold, row.fpr)
    return marking_limit(spec.calibration)


def _case(
    row: Prediction,
    spec: ModelSpec,
    image: ImageArray,
    info: ImageInfo,
    prob: ProbArray,
    decode: FileDecoder,
) -> ImageCase:
    shown = shrink(image, _SIDE)
    small = resize_by_area(prob[..., None], (shown.shape[0], shown.shape[1]))[..., 0]
    upright = np.ascontiguousarray(upright_image(small, info.orientation)).clip(0, 1)
    limit = _limit(spec, row)
    suspected = limit is None or row.image_score > limit.score
    found = find_regions(upright, row.threshold) if suspected else []
    try:
        details = decode.details(row.path)
    except RejectedInput as error:  # no reason to leave out an image that was localized
        details = FileDetails(0, metadata=(("Details", f"unreadable: {error.reason}"),))
    return ImageCase(
        row, info, details,
        _uri(upright_image(shown, info.orientation)), _uri(heat(upright)),
        _thumbnail(details.thumbnail, decode, info.orientation),
        (upright.shape[0], upright.shape[1]), suspected,
        tuple(found[:_MAX_REGIONS]), max(len(found) - _MAX_REGIONS, 0),
    )  # fmt: skip


def find_regions(prob: ProbArray, threshold: float) -> list[Region]:
    """The connected regions of a map (H, W) above a threshold, without specks.

    Those with the largest sum of probability come first.
    """
    flagged = (prob > threshold).astype(np.uint8)
    count, numbers = cv2.connectedComponents(flagged, connectivity=8)
    areas = np.bincount(numbers.ravel(), minlength=count)
    sums = np.bincount(numbers.ravel(), prob.ravel(), count)
    kept = [n for n in range(1, count) if areas[n] >= _MIN_AREA * prob.size]
    return [
        Region(float(areas[n] / prob.size), float(sums[n] / areas[n]), *_outline(numbers == n))
        for n in sorted(kept, key=lambda n: sums[n], reverse=True)
    ]


def _outline(mask: MaskArray) -> tuple[str, tuple[int, int]]:
    """Contours of a region as a path, and its highest point."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lines = [cv2.approxPolyDP(contour, 1.0, closed=True)[:, 0].tolist() for contour in contours]
    path = "".join("M" + "L".join(f"{x},{y}" for x, y in line) + "Z" for line in lines)
    top = int(np.argmax(mask.any(axis=1)))
    return path, (int(np.argmax(mask[top])), top)


def _thumbnail(data: bytes, decode: FileDecoder, orientation: int) -> str:
    if not data:
        return ""
    try:
        image, _ = decode.decode_bytes(data, "thumbnail.jpg")
    except RejectedInput:
        return ""
    return _uri(upright_image(shrink(image, 320), orientation))


def _uri(image: ImageArray) -> str:
    data = encode_jpeg(np.ascontiguousarray(image), _QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def _css(colour: Iterable[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _environment() -> Environment:
    environment = page_environment("boxpromptiml.inference", ".")
    environment.filters |= {"percent": _percent, "probability": _probability}
    return environment


def _probability(value: float) -> str:
    """A probability as whole percent; none is certain."""
    shown = round(100 * value)
    return "more than 99 %" if shown > 99 else "less than 1 %" if shown < 1 else f"{shown} %"


def _percent(value: float) -> str:
    """A fraction as percent, with as many digits as it has to say."""
    shown = 100 * value
    return f"{shown:.0f} %" if shown >= 10 else f"{shown:.2g} %"
