"""What the prototypes of a student's memory answer to, and its attention maps, as pictures.

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
        attention: A_mem of a cell that it alone answers to, in (0, 1).
        patches: Patches around the cell that it answers to most, of one image each.
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
    """Look at what a memory answers to on images evenly chosen from a list.

    Returns:
        None if the checkpoint cannot be loaded, holds no student with a memory, or no image of the
        list can be read.
    """
    try:
        network, spec = load_localizer(checkpoint)
    except UserError:
        return None
    if not isinstance(network, Student) or network.fusion.memory is None:
        return None
    sources = {s.id: Source(m, s) for m in manifests for s in m.samples}
    seen = list(_attended(network, spec, _evenly(images, _IMAGES), sources))
    if not seen:
        return None
    alpha = float(network.fusion.alpha_logit.detach().sigmoid())
    prototypes = _prototypes(network.fusion.memory, seen)
    shown = tuple(_attention(*one) for one in _evenly(seen, _SHOWN))
    count = len(network.fusion.memory.prototypes)
    return Memory(count, alpha, len(seen), prototypes, shown)


def _evenly(values: Sequence[T], count: int) -> list[T]:
    last = len(values) - 1
    places = {round(last * step / max(count - 1, 1)) for step in range(count)}
    return [values[place] for place in sorted(places)] if values else []


def _attended(
    network: Student, spec: ModelSpec, images: Sequence[GalleryImage], sources: dict[str, Source]
) -> Iterator[tuple[GalleryImage, ImageArray, Fused]]:
    """Each image that can be read, its pixels, and what the fusion makes of them."""
    for image in images:
        try:
            pixels = stored_image(sources[image.id])[:_MAX_SIDE, :_MAX_SIDE]
        except (KeyError, UserError):  # the gallery says so
            continue
        fed = torch.from_numpy(whole_image(pixels, spec.input))[None]
        with torch.inference_mode():
            yield image, pixels, network.attend(fed)[1]


def _prototypes(
    memory: PrototypeMemory, seen: Sequence[tuple[GalleryImage, ImageArray, Fused]]
) -> tuple[Prototype, ...]:
    with torch.inference_mode():
        answers = [memory.answers(fused.features)[0].numpy() for _, _, fused in seen]
        attention = memory.read(memory.prototypes).sigmoid().flatten().tolist()
    fractions = np.mean([one.mean(axis=(1, 2)) for one in answers], axis=0)
    found = []
    for k in np.argsort(-fractions, kind="stable")[:_PROTOTYPES].tolist():
        best = heapq.nlargest(_PATCHES, range(len(seen)), key=lambda n, k=k: answers[n][k].max())  # type: ignore[misc]
        strip = np.hstack([_patch(seen[n][1], answers[n][k]) for n in best])
        alt = f"{len(best)} image patches that prototype {k + 1} answers to"
        found.append(Prototype(k + 1, float(fractions[k]), attention[k], _panel("", alt, strip)))
    return tuple(found)


def _patch(image: ImageArray, answer: ProbArray) -> ImageArray:
    """The pixels (48, 48, 3) around the cell of the largest answer (h, w)."""
    place = np.unravel_index(answer.argmax(), answer.shape)
    side = min(_PATCH, *image.shape[:2])
    y, x = (
        int(np.clip((cell + 0.5) * length / cells - side / 2, 0, length - side))
        for cell, cells, length in zip(place, answer.shape, image.shape[:2], strict=True)
    )
    patch = image[y : y + side, x : x + side]
    return np.asarray(cv2.resize(patch, (_PATCH, _PATCH), interpolation=cv2.INTER_AREA))


def _attention(image: GalleryImage, pixels: ImageArray, fused: Fused) -> GalleryImage:
    photo = overlays.thumbnail(pixels, _THUMBNAIL)
    maps = {"A_base": fused.base.sigmoid(), "A_final": fused.final.mean(dim=1, keepdim=True)}
    if fused.memory is not None:
        maps["A_mem"] = fused.memory.sigmoid()
    panels = [_panel("Image", "The image", photo)]
    for name, attention in sorted(maps.items(), key=lambda one: one[0] == "A_final"):
        values = attention[0, 0].float().numpy()
        small = cv2.resize(values, photo.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        caption = f"{name}, {values.min():.2f} to {values.max():.2f}"
        panels.append(
            _panel(caption, f"Heat map of {caption}", overlays.heat(np.asarray(small, np.float32)))
        )
    return replace(image, panels=tuple(panels))


def _panel(caption: str, alt: str, picture: ImageArray) -> Panel:
    uri = jpeg_uri(picture, _QUALITY)
    return Panel(caption, alt, uri, picture.shape[1], picture.shape[0])
