"""Fills the cache of resized training images (docs/decisions/021-cache.md)."""

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

_VERSION = 2  # raise it whenever the processing between a file and its slot changes
_ON_STORED_PIXELS = ("blur", "noise", "jpeg")


def refuse_uncacheable(network_input: NetworkInput, augmentation: Augmentation) -> None:
    """Check that nothing but the resize needs the stored pixels, which the cache does not keep.

    Raises:
        UserError: Names the settings that do.
    """
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
    """The sources at the network's size, by position; missing ones are added to the folder first.

    Images that cannot be read are not added; reading them later fails as it does without a cache.

    Args:
        folder: Cache folder; several runs may share it, also at the same time.
        sources: The training images.
        target: Gives the training target of a sample.
        size: (h, w) of the network's input.
        num_workers: Number of decoding processes.

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
    """Positions of the keys that the store lacks; of equal keys only the first."""
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
            trimap = supervision_trimap(source, self._annotation(source))
        except RejectedInput:
            return None
        return b"".join(part.tobytes() for part in self.resize(image, trimap))

    def key(self, source: Source) -> bytes:
        """Hash of everything the slot depends on; empty if a file cannot be read.

        Images are identified by the hash in the manifest where there is one; masks are hashed.
        """
        manifest, sample = source
        try:
            description = {
                "version": _VERSION,
                "libraries": [PIL.__version__, cv2.__version__],
                "size": self.resize.size,
                "stored": sample.size,
                "image": sample.image_sha256 or _hash(manifest.image_path(sample)),
                "supervision": self._evidence(source),
            }
        except RejectedInput:
            return b""
        return bytes.fromhex(fingerprint(description))

    def _evidence(self, source: Source) -> Any:
        """Identifies what the supervision is made from, as JSON."""
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
        target = self.target(source.sample)
        return target.annotation if target else "label"


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
