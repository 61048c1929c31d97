"""The pixels behind an evaluation's rows, read from their files one image at a time."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boxpromptiml.errors import UserError
from boxpromptiml.evaluation.matching import PredictionFile
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Manifest, confined
from boxpromptiml.manifests.sources import Source, check_size, ground_truth
from boxpromptiml.metrics.results import Evaluation
from boxpromptiml.report.gallery import Entry, Row
from boxpromptiml.report.panels import Panel, Views, draw_panels

_MAX_PSEUDO_MASKS = 8
_SMALL = (320, 60_000)  # side of a picture, characters of a row


class StoredViews:
    """Draws the images of an evaluation.

    Args:
        folder: Of the evaluation.
        evaluation: Its content.
        manifests: That were scored; what cannot be found there is said in the image's place.
    """

    def __init__(self, folder: Path, evaluation: Evaluation, manifests: Iterable[Manifest]) -> None:
        self._sources = {s.id: Source(m, s) for m in manifests for s in m.samples}
        self._names = {row.id: row.name for row in evaluation.rows}
        self._maps = _maps_folder(folder, evaluation.metrics)

    def draw(self, entry: Entry, side: int, most: int) -> Sequence[Panel]:
        """The panels of an image, see `draw_panels`; why there are none where a file is missing."""
        try:
            return draw_panels(self.views(entry), side, most)
        except UserError as error:
            return (Panel("Image", f"cannot be shown: {error}"),)

    def views(self, entry: Entry) -> Views:
        """All pixels of an image.

        Raises:
            UserError: If the image is in no manifest, or a file of it cannot be used.
        """
        source = self._sources.get(entry.id)
        if source is None:
            raise UserError("the image is in no manifest that was found")
        manifest, sample = source
        image, _ = images.read_image(manifest.image_path(sample))
        check_size(image.shape[:2], sample, sample.image)
        path = confined(self._maps, f"{self._names[entry.id]}.png")
        levels = PredictionFile(self._names[entry.id], path).levels()
        check_size(levels.shape, sample, str(path))
        pseudo = manifest.pseudo_mask_path(sample) if entry.manipulated else None
        return Views(
            image=image,
            boxes=sample.boxes or (),
            pseudo_mask=images.read_trimap(pseudo) if pseudo else None,
            prob=levels.astype(np.float32) / np.float32(255),
            truth=ground_truth(source) if entry.manipulated else None,
        )


def worst_pseudo_masks(manifest: Manifest, worst: Sequence[tuple[str, float]]) -> tuple[Row, ...]:
    """Image, pseudo-mask and ground truth of the first few in a list of ids and IoUs."""
    sources = {sample.id: Source(manifest, sample) for sample in manifest.samples}
    rows = []
    for name, iou in worst[:_MAX_PSEUDO_MASKS]:
        kind = sources[name].sample.kind if name in sources else None
        entry = Entry(name, kind or "", True, math.nan, iou, math.nan)
        try:
            panels: Sequence[Panel] = draw_panels(_pseudo_views(sources.get(name)), *_SMALL)
        except UserError as error:
            panels = (Panel("Image", f"cannot be shown: {error}"),)
        rows.append(Row(entry, tuple(panels)))
    return tuple(rows)


def _pseudo_views(source: Source | None) -> Views:
    path = source.manifest.pseudo_mask_path(source.sample) if source else None
    if source is None or path is None:
        raise UserError("the image or its pseudo-mask is no longer in the training manifest")
    sample = source.sample
    image, _ = images.read_image(source.manifest.image_path(sample))
    check_size(image.shape[:2], sample, sample.image)
    levels = images.read_trimap(path)
    check_size(levels.shape, sample, str(path))
    return Views(image, sample.boxes or (), levels, None, ground_truth(source))


def _maps_folder(folder: Path, metrics: dict[str, Any]) -> Path:
    """Where the maps lie: beside the scores, or where they lay when they were scored."""
    beside = folder / "predictions"
    found = beside if beside.is_dir() else Path(str(metrics.get("predictions", beside)))
    return found / "prob" if (found / "prob").is_dir() else found
