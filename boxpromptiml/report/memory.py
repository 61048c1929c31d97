"""What the prototypes of a student's memory respond to, and its attention maps, as pictures.

Symbols are those of `models/fusion.py` (arXiv 2511.20359).
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch

from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io.images import probe
from boxpromptiml.io.orientation import upright_image
from boxpromptiml.manifests.manifest import Manifest
from boxpromptiml.manifests.sources import Source, stored_image
from boxpromptiml.models.fusion import Fused, PrototypeMemory
from boxpromptiml.models.inputs import whole_image
from boxpromptiml.models.student import Student
from boxpromptiml.records import ImageArray, ProbArray
from boxpromptiml.report.gallery import GalleryImage
from boxpromptiml.report.panels import Panel, jpeg_uri
from boxpromptiml.visualization import overlays

T = TypeVar("T")

_IMAGES, _SHOWN = 24, 4  # looked at, and shown with their attention
_PROTOTYPES, _PATCHES = 32, 8  # shown at most, and image patches of each
_MAX_SIDE = 1024  # pixels; of a larger image only the upper left corner is looked at
_PATCH, _THUMBNAIL = 48, 320  # pixels
_QUALITY = 80


class Prototype(NamedTuple):
    """One prototype P_k.

    Attributes:
        number: k, from 1.
        fraction: Mean of its weight w_k over all cells; the weights of a cell sum to 1.
        attention: A_mem of a cell to which it alone responds, in (0, 1).
        patches: Patches around the cell to which it responds most, of one image each.
    """

    number: int
    fraction: float
    attention: float
    patches: Panel


@dataclass(frozen=True)
class Memory:
    """The memory of a student on a few manipulated images.

    Attributes:
        count: K, the number of prototypes.
        alpha: Weight of A_base against A_mem.
        looked_at: Number of images that were looked at.
        prototypes: Those with the largest fraction, that first.
        images: A few images, whose panels are A_base, A_mem and A_final.
    """

    count: int
    alpha: float
    looked_at: int
    prototypes: tuple[Prototype, ...]
    images: tuple[GalleryImage, ...]


def look_into_memory(
    checkpoint: Path, images: Sequence[GalleryImage], manifests: Sequence[Manifest]
) -> Memory | None:
    """Look at what a student's memory responds to on images evenly chosen from a list.

    Args:
        checkpoint: The student's file.
        images: To choose from.
        manifests: Say where the files of these images are.

    Returns:
        None if the checkpoint cannot be loaded, holds no student with a memory, or no image of the
        list can be read.
    """
    try:
        network, spec = load_localizer(checkpoint)
    except UserError:
        return None
    memory = network.fusion.memory if isinstance(network, Student) else None
    if not isinstance(network, Student) or memory is None:
        return None
    sources = {s.id: Source(m, s) for m in manifests for s in m.samples}
    seen = list(_looks(network, memory, spec, _evenly(images, _IMAGES), sources))
    if not seen:
        return None
    alpha = float(network.fusion.alpha_logit.detach().sigmoid())
    prototypes = _prototypes(memory, seen)
    shown = tuple(one.attention for one in _evenly(seen, _SHOWN))
    return Memory(len(memory.prototypes), alpha, len(seen), prototypes, shown)


def _evenly(values: Sequence[T], count: int) -> list[T]:
    last = len(values) - 1
    places = {round(last * step / max(count - 1, 1)) for step in range(count)}
    return [values[place] for place in sorted(places)] if values else []


class _Look(NamedTuple):
    """What the memory makes of one image.

    Attributes:
        attention: The image with its attention maps.
        mean: Mean weight of each prototype (K,).
        highest: Highest weight of each prototype (K,).
        patches: Pixels (48, 48, 3) around the cell of the highest weight, of each prototype.
    """

    attention: GalleryImage
    mean: ProbArray
    highest: ProbArray
    patches: list[ImageArray]


def _looks(
    network: Student,
    memory: PrototypeMemory,
    spec: ModelSpec,
    images: Sequence[GalleryImage],
    sources: dict[str, Source],
) -> Iterator[_Look]:
    """A look at each image that can be read."""
    for image in images:
        try:
            manifest, sample = source = sources[image.id]
            pixels = stored_image(source)
            orientation = probe(manifest.image_path(sample)).orientation
        except (KeyError, UserError):  # the gallery says so
            continue
        if spec.input.mode == "native":
            pixels = pixels[:_MAX_SIDE, :_MAX_SIDE]
        fed = torch.from_numpy(whole_image(pixels, spec.input))[None]
        with torch.inference_mode():
            fused = network.attend(fed)[1]
            fused = _without_padding(fused, fed.shape[2:], network.backbone.strides[0])
            weights = memory.weights(fused.features)[0].numpy()
        patches = [upright_image(_patch(pixels, one), orientation) for one in weights]
        attention = _attention(image, pixels, fused, orientation)
        yield _Look(attention, weights.mean(axis=(1, 2)), weights.max(axis=(1, 2)), patches)


def _without_padding(fused: Fused, size: Sequence[int], cell: int) -> Fused:
    """The maps without the cells that lie outside an input of `size` (h, w)."""
    rows, columns = (-(-length // cell) for length in size)
    cut = {k: m[..., :rows, :columns] for k, m in fused._asdict().items() if m is not None}
    return fused._replace(**cut)


def _prototypes(memory: PrototypeMemory, seen: Sequence[_Look]) -> tuple[Prototype, ...]:
    with torch.inference_mode():
        attention = memory.read(memory.prototypes).sigmoid().flatten().tolist()
    fractions = np.mean([one.mean for one in seen], axis=0)
    found = []
    for k in np.argsort(-fractions, kind="stable")[:_PROTOTYPES].tolist():
        best = heapq.nlargest(_PATCHES, seen, key=lambda one, k=k: one.highest[k])  # type: ignore[misc]
        strip = np.hstack([one.patches[k] for one in best])
        alt = f"{len(best)} image patches to which prototype {k + 1} responds"
        found.append(Prototype(k + 1, float(fractions[k]), attention[k], _panel("", alt, strip)))
    return tuple(found)


def _patch(image: ImageArray, weights: ProbArray) -> ImageArray:
    """The pixels (48, 48, 3) around the cell of the highest weight (h, w)."""
    place = np.unravel_index(weights.argmax(), weights.shape)
    side = min(_PATCH, *image.shape[:2])
    y, x = (
        int(np.clip((cell + 0.5) * length / cells - side / 2, 0, length - side))
        for cell, cells, length in zip(place, weights.shape, image.shape[:2], strict=True)
    )
    patch = image[y : y + side, x : x + side]
    return np.asarray(cv2.resize(patch, (_PATCH, _PATCH), interpolation=cv2.INTER_AREA))


def _attention(
    image: GalleryImage, pixels: ImageArray, fused: Fused, orientation: int
) -> GalleryImage:
    photo = overlays.thumbnail(pixels, _THUMBNAIL)
    maps = {"A_base": fused.base.sigmoid(), "A_final": fused.final.mean(dim=1, keepdim=True)}
    if fused.memory is not None:
        maps["A_mem"] = fused.memory.sigmoid()
    panels = [_panel("Image", "The image", upright_image(photo, orientation))]
    for name, attention in sorted(maps.items(), key=lambda one: one[0] == "A_final"):
        values = attention[0, 0].float().numpy()
        small = cv2.resize(values, photo.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        caption = f"{name}, {values.min():.2f} to {values.max():.2f}"
        heat = overlays.heat(upright_image(np.asarray(small, np.float32), orientation))
        panels.append(_panel(caption, f"Heat map of {caption}", heat))
    return replace(image, panels=tuple(panels))


def _panel(caption: str, alt: str, picture: ImageArray) -> Panel:
    uri = jpeg_uri(picture, _QUALITY)
    return Panel(caption, alt, uri, picture.shape[1], picture.shape[0])
