"""Bringing the cache of resized training images up to date; decision 021 says what it may hold."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL

from boxpromptiml.data.cache import CachedImages, Keys, PixelStore
from boxpromptiml.data.supervision import Annotation, TrainingTarget, supervision_trimap
from boxpromptiml.data.transforms import Augmentation, Resize
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.files import fingerprint
from boxpromptiml.io.progress import parallel
from boxpromptiml.manifests.sources import Source, Sources, stored_image
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Sample

_VERSION = 1  # of what is done between the files and a slot
_ON_STORED_PIXELS = ("blur", "noise", "jpeg")


def refuse_uncacheable(network_input: NetworkInput, augmentation: Augmentation) -> None:
    """UserError if anything but the resize works on the stored pixels, and so would be lost."""
    found = [f"augmentation.{name}" for name in _ON_STORED_PIXELS if getattr(augmentation, name)]
    if augmentation.min_scale < 1:
        found.append("augmentation.min_scale")
    if network_input.error_levels:
        found.append("input.error_levels")
    if network_input.mode == "native":
        found.append("input.mode=native")
    if found:
        raise UserError(
            "data.cache keeps images resized to data.input.size, but these need the stored pixels "
            f"every time: {', '.join(found)}. Train without data.cache, or without them"
        )


def cached_images(
    folder: Path,
    sources: Sources,
    target: Callable[[Sample], TrainingTarget | None],
    size: tuple[int, int],
    num_workers: int,
) -> CachedImages:
    """The sources at network size, by position; what the folder lacks is added first.

    An image that cannot be read is not added: whoever asks for it finds out as without a cache.

    Args:
        folder: May be shared by runs, also at the same time.
        sources: To be cached.
        target: What a sample teaches with.
        size: (h, w) of the network.
        num_workers: Processes that decode.

    Raises:
        UserError: If something is to be added and the folder cannot be written or the disk is full.
    """
    work = _Work(sources, target, Resize(size))
    keys = np.fromiter((work.key(source) for source in sources), "S32", len(sources))
    store = PixelStore(folder, size)
    if _missing(store, keys).size:
        with store.appending():
            missing = _missing(store, keys)  # another process may have added some meanwhile
            store.require_room(len(missing))
            store.append(_made(work, keys, missing, num_workers))
    return store.open(keys)


def _missing(store: PixelStore, keys: Keys) -> npt.NDArray[np.intp]:
    """Positions of keys that the store lacks, of equal ones the first."""
    places = np.flatnonzero((store.slots(keys) < 0) & (keys != b""))
    _, first = np.unique(keys[places], return_index=True)
    return places[np.sort(first)]


@dataclass(frozen=True)
class _Work:
    """What a slot holds, by the source's position; None for an image that cannot be read."""

    sources: Sources
    target: Callable[[Sample], TrainingTarget | None]
    resize: Resize

    def __call__(self, position: int) -> bytes | None:
        """Image and trimap at network size, one after the other, as bytes."""
        source = self.sources[position]
        try:
            image = stored_image(source)
            levels = supervision_trimap(source, self._annotation(source))
        except RejectedInput:
            return None
        return b"".join(part.tobytes() for part in self.resize(image, levels))

    def key(self, source: Source) -> bytes:
        """Hash of all that the slot depends on; empty for files that cannot be read.

        An image is known by the manifest's hash, without opening it; masks are always opened.
        """
        manifest, sample = source
        try:
            description = {
                "version": _VERSION,
                "libraries": [PIL.__version__, cv2.__version__],
                "size": self.resize.size,
                "stored": sample.size,
                "image": sample.image_sha256 or _hash(manifest.image_path(sample)),
                "levels": self._evidence(source),
            }
        except RejectedInput:
            return b""
        return bytes.fromhex(fingerprint(description))

    def _evidence(self, source: Source) -> Any:
        """What the supervision is made from."""
        manifest, sample = source
        annotation = "authentic" if sample.label == 0 else self._annotation(source)
        if annotation == "box":
            return [annotation, sample.boxes]
        if annotation == "mask":
            return [annotation, _hash(manifest.mask_path(sample)), sample.mask_threshold]
        if annotation == "pseudo":
            return [annotation, _hash(manifest.pseudo_mask_path(sample))]
        return [annotation]

    def _annotation(self, source: Source) -> Annotation:
        taught = self.target(source.sample)
        return taught.annotation if taught else "label"


def _hash(path: Path | None) -> str | None:
    return images.probe(path).sha256 if path else None


def _made(
    work: _Work, keys: Keys, missing: npt.NDArray[np.intp], num_workers: int
) -> Iterator[tuple[bytes, bytes]]:
    """Key and pixels of what is missing and can be read."""
    made = parallel(work, missing.tolist(), num_workers, "resizing")
    for position, pixels in zip(missing, made, strict=True):
        if pixels is not None:
            yield bytes(keys[position]), pixels
