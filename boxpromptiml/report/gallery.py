"""The gallery of a report: the choice of images, and their pixels from the run's files.

Images are drawn one after the other and only thumbnails are kept, which limits page and memory for
any number and size of images.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.io.map_files import read_map
from boxpromptiml.manifests.manifest import Manifest, confined
from boxpromptiml.manifests.sources import Source, check_size, ground_truth
from boxpromptiml.metrics.results import Evaluation
from boxpromptiml.report.panels import PSEUDO_MASK, Panel, Views, draw_panels

MAX_IMAGES = 1000
_MAX_BYTES = 27_000_000  # of all pictures, as text of the page
_SIDES = (400, 320)  # pixels of a thumbnail, in small and in large galleries
_MANY = 300
_BINS = 10
_MAX_PSEUDO_MASKS = 8
_SMALL = (320, 60_000)  # side of a picture, characters of a row


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery.

    Attributes:
        id: Shown as text, whatever it contains.
        kind: Forgery kind; may be empty.
        manipulated: False for an authentic image.
        f1: Pixel F1; nan for an authentic image.
        iou: Pixel IoU; nan for an authentic image.
        flagged: Fraction of the pixels that are flagged.
        panels: Its pictures; empty until they are drawn.
    """

    id: str
    kind: str
    manipulated: bool
    f1: float
    iou: float
    flagged: float
    panels: tuple[Panel, ...] = ()


@dataclass(frozen=True)
class Gallery:
    """The images to show, and counts of all images.

    Attributes:
        shown: Manipulated images, lowest F1 first.
        shown_authentic: Authentic images, largest flagged fraction first.
        f1: Pixel F1 of all manipulated images that have one, shown or not.
        manipulated: Number of manipulated images.
        authentic: Number of authentic images.
        false_positives: Number of authentic images with a flagged pixel.
        worst: Number of images in `shown` that are the lowest by F1.
        best: Number of images in `shown` that are the highest by F1.
        seed: Seed of the random choice of the other images in `shown`.
    """

    shown: tuple[GalleryImage, ...] = ()
    shown_authentic: tuple[GalleryImage, ...] = ()
    f1: tuple[float, ...] = ()
    manipulated: int = 0
    authentic: int = 0
    false_positives: int = 0
    worst: int = 0
    best: int = 0
    seed: int = 0

    @property
    def kinds(self) -> list[str]:
        """Forgery kinds of `shown`, in order."""
        return sorted({image.kind for image in self.shown})

    @cached_property
    def place_by_name(self) -> dict[str, int]:
        """Position of each image of `shown` in the order of ids, from 0."""
        return {id_: place for place, id_ in enumerate(sorted(image.id for image in self.shown))}

    @property
    def has_pseudo_masks(self) -> bool:
        """Whether any image of `shown` has a pseudo-mask."""
        return any(panel.caption == PSEUDO_MASK for image in self.shown for panel in image.panels)

    @property
    def histogram(self) -> list[tuple[float, float, int, float]]:
        """Lower and upper F1 of ten bins, the images in each, and percent of the fullest bin."""
        counts, edges = np.histogram(self.f1, _BINS, (0, 1))
        percents = np.round(100 * counts / max(counts.max(), 1), 1)
        columns = (edges[:-1], edges[1:], counts, percents)
        return list(zip(*(column.tolist() for column in columns), strict=True))


Draw = Callable[[GalleryImage, int, int], tuple[Panel, ...]]


def make_gallery(
    scored: Sequence[GalleryImage], draw: Draw, limit: int = MAX_IMAGES, seed: int = 0
) -> Gallery:
    """Choose the images to show and draw them, one after the other.

    Args:
        scored: All images that were scored, in any order.
        draw: Draws the panels of an image, given the longer side of a thumbnail in pixels and the
            maximum number of characters of all panels together: `StoredPixels.draw`.
        limit: Maximum number of images to show.
        seed: Decides which of the images are drawn at random.
    """
    manipulated = sorted((one for one in scored if one.manipulated), key=_lowest_f1_first)
    authentic = [one for one in scored if not one.manipulated]
    wrong = sorted((o for o in authentic if o.flagged > 0), key=lambda o: (-o.flagged, o.id))
    shown_wrong = wrong[: max(limit - len(manipulated), limit // 10)]
    shown, worst, best = _choose(manipulated, limit - len(shown_wrong), seed)
    count = len(shown) + len(shown_wrong)
    side, most = _SIDES[count > _MANY], _MAX_BYTES // max(count, 1)
    drawn, drawn_wrong = (
        tuple(replace(one, panels=draw(one, side, most)) for one in some)
        for some in (shown, shown_wrong)
    )
    return Gallery(
        shown=drawn,
        shown_authentic=drawn_wrong,
        f1=tuple(one.f1 for one in manipulated if math.isfinite(one.f1)),
        manipulated=len(manipulated),
        authentic=len(authentic),
        false_positives=len(wrong),
        worst=worst,
        best=best,
        seed=seed,
    )


def _lowest_f1_first(image: GalleryImage) -> tuple[bool, float, str]:
    known = math.isfinite(image.f1)
    return not known, image.f1 if known else 0.0, image.id


def _choose(
    ordered: Sequence[GalleryImage], limit: int, seed: int
) -> tuple[list[GalleryImage], int, int]:
    """Images to show, in order, and how many of them are the lowest and the highest of all."""
    if len(ordered) <= limit:
        return list(ordered), len(ordered), 0
    worst, best = limit // 2, limit // 4
    others = np.arange(worst, len(ordered) - best)
    drawn = np.random.default_rng(seed).choice(others, limit - worst - best, replace=False)
    numbers = [*range(worst), *sorted(drawn), *range(len(ordered) - best, len(ordered))]
    return [ordered[number] for number in numbers], worst, best


class StoredPixels:
    """The pixels behind an evaluation's rows, read from their files one image at a time.

    Args:
        folder: The evaluation's folder.
        evaluation: Its content.
        manifests: The manifests that were scored.
    """

    def __init__(self, folder: Path, evaluation: Evaluation, manifests: Iterable[Manifest]) -> None:
        self._sources = {s.id: Source(m, s) for m in manifests for s in m.samples}
        self._names = {row.id: row.name for row in evaluation.rows}
        self._maps = _maps_folder(folder, evaluation.metrics)

    def draw(self, image: GalleryImage, side: int, most: int) -> tuple[Panel, ...]:
        """The panels of an image by `draw_panels`; one with the reason if a file cannot be used."""
        return _draw(lambda: self._views(image), side, most)

    def _views(self, image: GalleryImage) -> Views:
        source = self._sources.get(image.id)
        if source is None:
            raise UserError("the image is in no manifest that was found")
        manifest, sample = source
        pixels, info = images.read_image(manifest.image_path(sample))
        check_size(pixels.shape[:2], sample, sample.image)
        name = self._names[image.id]
        png = confined(self._maps, f"{name}.png")
        path = png if png.exists() else confined(self._maps, name)
        prob = read_map(path).prob
        check_size(prob.shape, sample, str(path))
        pseudo = manifest.pseudo_mask_path(sample) if image.manipulated else None
        return Views(
            image=pixels,
            boxes=sample.boxes or (),
            pseudo_mask=images.read_trimap(pseudo) if pseudo else None,
            prob=prob,
            truth=ground_truth(source) if image.manipulated else None,
        ).upright(info.orientation)


def worst_pseudo_masks(
    manifest: Manifest, worst: Sequence[tuple[str, float]]
) -> tuple[GalleryImage, ...]:
    """Image, pseudo-mask and ground truth of the first few in a list of ids and IoUs."""
    sources = {sample.id: Source(manifest, sample) for sample in manifest.samples}
    shown = []
    for id_, iou in worst[:_MAX_PSEUDO_MASKS]:
        source = sources.get(id_)
        kind = source.sample.kind if source else None
        panels = _draw(lambda source=source: _pseudo_views(source), *_SMALL)  # type: ignore[misc]
        shown.append(GalleryImage(id_, kind or "", True, math.nan, iou, math.nan, panels))
    return tuple(shown)


def _pseudo_views(source: Source | None) -> Views:
    path = source.manifest.pseudo_mask_path(source.sample) if source else None
    if source is None or path is None:
        raise UserError("the image or its pseudo-mask is no longer in the training manifest")
    sample = source.sample
    pixels, info = images.read_image(source.manifest.image_path(sample))
    check_size(pixels.shape[:2], sample, sample.image)
    trimap = images.read_trimap(path)
    check_size(trimap.shape, sample, str(path))
    views = Views(pixels, sample.boxes or (), trimap, None, ground_truth(source))
    return views.upright(info.orientation)


def _draw(read: Callable[[], Views], side: int, most: int) -> tuple[Panel, ...]:
    try:
        return draw_panels(read(), side, most)
    except UserError as error:
        return (Panel("Image", f"cannot be shown: {error}"),)


def _maps_folder(folder: Path, metrics: dict[str, Any]) -> Path:
    """Folder of the maps: beside the scores, or where they were when scored."""
    beside = folder / "predictions"
    found = beside if beside.is_dir() else Path(str(metrics.get("predictions", beside)))
    return found / "prob" if (found / "prob").is_dir() else found
