"""A forgery by the plain recipe: its specification, its making, and its provenance."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import ConfigDict

from boxpromptiml.errors import RejectedInput
from boxpromptiml.geometry import from_mask
from boxpromptiml.io import images
from boxpromptiml.io.files import fingerprint, sha256_bytes
from boxpromptiml.records import Box, ImageArray, MaskArray
from boxpromptiml.synth import forge
from boxpromptiml.synth.boxes import ANNOTATORS, draw
from boxpromptiml.synth.degradation import jpeg
from boxpromptiml.synth.forge import Forgery, ForgeryKind, ForgeryStyle
from boxpromptiml.synth.regions import object_region, resized_region
from data_prep.forgery.outlines import decode_outline
from data_prep.forgery.photographs import Photo, ids_of, load, named, without_colour

_VERSION = 2  # of the method; another one makes all forgeries anew
_MAX_TRIES = 20
_OUTLINE_AREA = (0.005, 0.3)  # fraction of the image; smaller is invisible, larger is the scene
_MIN_CHANGE = 8.0  # grey levels, mean over the mask; a forgery below it changes nothing


class Content(NamedTuple):
    """The bytes of a forgery's image and mask, and of its untouched host where it is saved too."""

    image: bytes
    mask: bytes
    authentic: bytes | None


@dataclass(frozen=True, slots=True)
class JpegHistory:
    """JPEG qualities, None where there is no compression.

    Attributes:
        host: Of the host before it is forged.
        region: Of the image that the region is cut from, before it is cut.
        final: Of the forgery as it is saved.
    """

    host: int | None
    region: int | None
    final: int


@dataclass(frozen=True, slots=True)
class Made:
    """What provenance/<id>.json says of a forgery by any recipe.

    Attributes:
        fingerprint: Of the specification; with another one the forgery is made anew.
        image_sha256: Of the image.
        mask_sha256: Of masks/<id>.png.
        authentic_sha256: Of images/<id>_authentic.*, the host saved alike; None without.
        size: (H, W).
        kind: Splice, copy-move or removal.
        boxes: Coarse ones around the mask, x0 y0 x1 y1.
        host: Path below its folder, hash and file format of the photograph.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    fingerprint: str
    image_sha256: str
    mask_sha256: str
    authentic_sha256: str | None
    size: tuple[int, int]
    kind: ForgeryKind
    boxes: tuple[Box, ...]
    host: dict[str, str]


@dataclass(frozen=True, slots=True)
class Provenance(Made):
    """How one forgery of the plain recipe was made, in provenance/<id>.json.

    Attributes:
        donor: Like `host`, the photograph that the region comes from: the host for a copy-move,
            None for a removal.
        region: Where the region was found (outline or superpixels), and its tight box in the donor
            as it was used, x0 y0 x1 y1.
        parameters: Scale, degrees, place and so on.
        jpeg: Qualities that host, region and forgery were compressed with.
    """

    donor: dict[str, str] | None
    region: dict[str, Any]
    parameters: dict[str, float | int | str]
    jpeg: dict[str, int | None]


def made(
    kind: ForgeryKind, host: Photo, content: Content, mask: MaskArray, rng: np.random.Generator
) -> dict[str, Any]:
    """The fields of `Made` but for the fingerprint, with boxes that are drawn here.

    Args:
        kind: Splice, copy-move or removal.
        host: Photograph that was forged.
        content: The bytes of its files.
        mask: (H, W) of the forgery.
        rng: Draws the boxes, as an annotator with seven seconds does.
    """
    return {
        "image_sha256": sha256_bytes(content.image),
        "mask_sha256": sha256_bytes(content.mask),
        "authentic_sha256": sha256_bytes(content.authentic) if content.authentic else None,
        "size": mask.shape,
        "kind": kind,
        "boxes": draw(mask, ANNOTATORS["7-second"], rng),
        "host": named(host),
    }


@dataclass(frozen=True, slots=True)
class ForgerySpec:
    """Everything that determines the bytes of one forgery by the plain recipe.

    Attributes:
        id: Names the files.
        seed: Of the random generator.
        kind: Splice, copy-move or removal.
        host: Photograph that is forged.
        donor: Photograph that a splice comes from; None for the other kinds.
        jpeg: Qualities of its compressions.
        style: Ranges of scale, rotation and so on.
        max_side: Photographs whose longer side has more pixels are shrunk to it first.
        authentic: Whether the untouched host is saved too.
    """

    id: str
    seed: tuple[int, ...]
    kind: ForgeryKind
    host: Photo
    donor: Photo | None
    jpeg: JpegHistory
    style: ForgeryStyle
    max_side: int | None
    authentic: bool

    @property
    def fingerprint(self) -> str:
        """Hash of all attributes, with the photographs by their content, not by their paths."""
        photos = [
            [p.sha256, [c.decode() for c in p.outlines]] for p in (self.host, self.donor) if p
        ]
        settings = [self.seed, self.kind, asdict(self.jpeg), asdict(self.style), self.max_side]
        return fingerprint([_VERSION, self.id, photos, settings, self.authentic])

    @property
    def ending(self) -> str:
        """Ending of the image files."""
        return ".jpg"

    @property
    def made_from(self) -> tuple[str, ...] | None:
        """Ids of host and donor in the manifests that list them; None for files of a folder."""
        return ids_of(self.host, self.donor)

    def make(self) -> tuple[Provenance, Content]:
        """Make the forgery.

        Raises:
            RejectedInput: If a photograph cannot be read, or no region of it makes a forgery.
        """
        host = load(self.host, self.max_side)
        compressed = _compressed(host, self.jpeg.host)
        rng = np.random.default_rng(self.seed)
        forgery, region = _forge(self, host, compressed, rng)
        content = Content(
            image=images.encode_jpeg(forgery.image, self.jpeg.final),
            mask=images.encode_png(forgery.mask.astype(np.uint8) * 255),
            authentic=images.encode_jpeg(compressed, self.jpeg.final) if self.authentic else None,
        )
        cut_from = {"splice": self.donor, "copymove": self.host, "removal": None}[self.kind]
        record = Provenance(
            fingerprint=self.fingerprint,
            **made(self.kind, self.host, content, forgery.mask, rng),
            donor=named(cut_from) if cut_from else None,
            region=region,
            parameters=forgery.parameters,
            jpeg=asdict(self.jpeg),
        )
        return record, content


def _compressed(image: ImageArray, quality: int | None) -> ImageArray:
    return image if quality is None else jpeg(image, quality)


def _forge(
    spec: ForgerySpec, host: ImageArray, compressed: ImageArray, rng: np.random.Generator
) -> tuple[Forgery, dict[str, Any]]:
    """Make a visible forgery; also returns where its region comes from.

    The region is cut from the donor's (for a copy-move: the host's) stored pixels, or from those
    compressed at `jpeg.region`; the fill of a removal is computed from the compressed host.

    Raises:
        RejectedInput: If the donor cannot be read, or no region makes a visible forgery.
    """
    photo, source = spec.host, host
    if spec.donor:
        photo, source = spec.donor, load(spec.donor, spec.max_side)
        if spec.host.grey:  # colour would give the splice away
            source = without_colour(source)
    cut_from = _compressed(source, spec.jpeg.region)
    for _ in range(_MAX_TRIES):
        region, origin = _region(spec.kind, photo, source, rng)
        if spec.kind == "splice":
            forgery = forge.splice(compressed, cut_from, region, rng, spec.style)
        elif spec.kind == "copymove":
            forgery = forge.copy_move(compressed, region, rng, spec.style, source=cut_from)
        else:
            forgery = forge.removal(compressed, region, rng)
        change = np.abs(forgery.image.astype(np.int16) - compressed)[forgery.mask]
        if change.size and change.mean() >= _MIN_CHANGE:
            return forgery, {"from": origin, "box": from_mask(region)}
    message = f"no {spec.kind} of it that can be seen, in {_MAX_TRIES} tries"
    raise RejectedInput(spec.host.path, "no_forgery", message)


def _region(
    kind: ForgeryKind, photo: Photo, image: ImageArray, rng: np.random.Generator
) -> tuple[MaskArray, str]:
    """A region (H, W) worth forging, preferably an outline of about the wanted area."""
    size = image.shape[0], image.shape[1]
    for number in rng.permutation(len(photo.outlines)):
        outline = resized_region(decode_outline(photo.outlines[number], photo.size), size)
        if _OUTLINE_AREA[0] <= outline.mean() <= _OUTLINE_AREA[1]:
            return outline, "outline"
    return object_region(image, rng, forge.REGION_AREAS[kind]), "superpixels"
