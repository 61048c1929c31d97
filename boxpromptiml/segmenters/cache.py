"""An on-disk cache of regions, for segmenters that are slower than reading a file."""

import hashlib
import logging
from pathlib import Path

import numpy as np

from boxpromptiml.io.files import atomic_writer, fingerprint, write_json
from boxpromptiml.records import Description, ImageArray, RegionArray, Segmenter

log = logging.getLogger(__name__)


class CachedSegmenter:
    """Reads regions from a folder if they are there, else asks the segmenter and stores them.

    There is one subfolder per fingerprint of the segmenter, so that changed weights or settings
    never use old regions, and one file per image, named by the hash of its pixels. A damaged file
    is made again. Several processes may share a folder: files are written atomically, and the same
    name always means the same regions.

    Args:
        segmenter: The segmenter for images that are not in the folder.
        folder: Parent of the subfolders; created if missing.
    """

    def __init__(self, segmenter: Segmenter, folder: Path) -> None:
        self._segmenter = segmenter
        self._folder = folder / fingerprint(segmenter.settings)[:16]

    @property
    def settings(self) -> Description:
        """Settings of the segmenter: a cache changes no region."""
        return self._segmenter.settings

    def regions(self, image: ImageArray) -> RegionArray:
        """(H, W) region numbers of an image (H, W, 3), 0 where there is no region."""
        path = self._folder / f"{_pixel_hash(image)}.npz"
        kept = _read(path, image.shape[:2])
        if kept is not None:
            return kept
        labels: RegionArray = self._segmenter.regions(image)
        description = self._folder / "segmenter.json"
        if not description.exists():
            write_json(description, self.settings)
        with atomic_writer(path) as stream:
            np.savez_compressed(stream, regions=labels)
        return labels


def _pixel_hash(image: ImageArray) -> str:
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _read(path: Path, size: tuple[int, ...]) -> RegionArray | None:
    """The regions in a file; None if it is missing, damaged or of another size."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            labels: RegionArray = archive["regions"]
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 (damaged archives raise anything)
        log.warning("%s: made again, cannot be read: %s", path, error)
        return None
    if labels.dtype != np.int32 or labels.shape != size or (labels.size and labels.min() < 0):
        log.warning("%s: made again, holds no regions of an image of size %s", path, size)
        return None
    return labels
