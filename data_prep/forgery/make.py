"""One forgery: how it is to be made, the making, and the record of how it was made."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from boxpromptiml.errors import RejectedInput
from boxpromptiml.geometry import from_mask
from boxpromptiml.io import images
from boxpromptiml.io.files import fingerprint, sha256_bytes, sha256_file, write_bytes, write_json
from boxpromptiml.records import Box, ImageArray, MaskArray
from boxpromptiml.synth import forge as synth
from boxpromptiml.synth.degradation import jpeg
from boxpromptiml.synth.forge import ForgeryStyle, Kind
from boxpromptiml.synth.photos import without_colour
from boxpromptiml.synth.regions import object_region
from data_prep.forgery.outlines import decode_outline
from data_prep.forgery.photographs import Photo, load

_VERSION = 1  # of the method: another one makes all forgeries anew
_TRIES = 20
_OUTLINE_AREA = (0.005, 0.3)  # share of the image; smaller is invisible, larger is the scene
_MIN_CHANGE = 8.0  # grey levels, mean over the mask; a forgery below it changes nothing


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
class Task:
    """All that decides the bytes of one forgery.

    Attributes:
        id: Names the files.
        seed: Of the generator.
        donor: For a splice.
        max_side: Larger photographs are made smaller first.
        authentic: The untouched host is saved too.
    """

    id: str
    seed: tuple[int, ...]
    kind: Kind
    host: Photo
    donor: Photo | None
    jpeg: JpegHistory
    style: ForgeryStyle
    max_side: int | None
    authentic: bool

    @property
    def signature(self) -> str:
        """Hash of everything above, of the photographs by content."""
        photos = [
            [p.sha256, [c.decode() for c in p.outlines]] for p in (self.host, self.donor) if p
        ]
        settings = [self.seed, self.kind, asdict(self.jpeg), asdict(self.style), self.max_side]
        return fingerprint([_VERSION, self.id, photos, settings, self.authentic])


@dataclass(frozen=True, slots=True)
class Provenance:
    """How one forgery came to be, in provenance/<id>.json.

    Attributes:
        signature: Of the task; another one makes the forgery anew.
        image_sha256: Of images/<id>.jpg.
        mask_sha256: Of masks/<id>.png.
        authentic_sha256: Of images/<id>_authentic.jpg, the host saved alike; None without.
        size: (H, W).
        kind: Of forgery.
        boxes: Coarse, around the mask.
        host: Photograph, with its hash and file format.
        donor: Photograph that the region comes from; the host itself for a copy-move.
        region: Where it was found (outline or superpixels), and its tight box in the donor as it
            was used, x0 y0 x1 y1.
        parameters: Scale, degrees, place and so on.
        jpeg: Qualities that host, region and forgery were compressed with.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    signature: str
    image_sha256: str
    mask_sha256: str
    authentic_sha256: str | None
    size: tuple[int, int]
    kind: Kind
    boxes: tuple[Box, ...]
    host: dict[str, str]
    donor: dict[str, str] | None
    region: dict[str, Any]
    parameters: dict[str, float | int | str]
    jpeg: dict[str, int | None]


_PROVENANCE = TypeAdapter(Provenance)


class Files(NamedTuple):
    """Where the files of a forgery lie, relative to the output folder."""

    image: str
    mask: str
    authentic: str
    provenance: str

    @classmethod
    def of(cls, name: str) -> "Files":
        """By the id of the forgery."""
        return cls(
            f"images/{name}.jpg",
            f"masks/{name}.png",
            f"images/{name}_authentic.jpg",
            f"provenance/{name}.json",
        )


def bring_up_to_date(task: Task, out: Path) -> tuple[Provenance, bool]:
    """Make a forgery unless its files are what this would write; whether it was made.

    Raises:
        RejectedInput: If a photograph cannot be read, or no region of it makes a forgery.
    """
    files = Files.of(task.id)
    known = _fresh(task, out)
    if known:
        return known, False
    host = load(task.host, task.max_side)
    compressed = _compressed(host, task.jpeg.host)
    rng = np.random.default_rng(task.seed)
    forgery, region = _forge(task, host, compressed, rng)
    image = images.encode_jpeg(forgery.image, task.jpeg.final)
    mask = images.encode_png(forgery.mask.astype(np.uint8) * 255)
    authentic = images.encode_jpeg(compressed, task.jpeg.final) if task.authentic else None
    cut_from = {"splice": task.donor, "copymove": task.host, "removal": None}[task.kind]
    made = Provenance(
        signature=task.signature,
        image_sha256=sha256_bytes(image),
        mask_sha256=sha256_bytes(mask),
        authentic_sha256=sha256_bytes(authentic) if authentic else None,
        size=(host.shape[0], host.shape[1]),
        kind=task.kind,
        boxes=tuple(synth.coarse_box(forgery.mask, rng)),
        host=_named(task.host),
        donor=_named(cut_from) if cut_from else None,
        region=region,
        parameters=forgery.drawn,
        jpeg=asdict(task.jpeg),
    )
    if authentic:
        write_bytes(out / files.authentic, authentic)
    write_bytes(out / files.image, image)
    write_bytes(out / files.mask, mask)
    write_json(out / files.provenance, _PROVENANCE.dump_python(made, mode="json"))
    return made, True


def _fresh(task: Task, out: Path) -> Provenance | None:
    """The record of a forgery, if all its files are what a run would write now."""
    files = Files.of(task.id)
    try:
        known = _PROVENANCE.validate_json((out / files.provenance).read_bytes())
        whole = (
            known.signature == task.signature
            and sha256_file(out / files.image) == known.image_sha256
            and sha256_file(out / files.mask) == known.mask_sha256
            and (not task.authentic or sha256_file(out / files.authentic) == known.authentic_sha256)
        )
    except (OSError, ValidationError):
        return None
    return known if whole else None


def _named(photo: Photo) -> dict[str, str]:
    return {"photo": photo.key, "sha256": photo.sha256, "format": photo.format}


def _compressed(image: ImageArray, quality: int | None) -> ImageArray:
    return image if quality is None else jpeg(image, quality)


def _forge(
    task: Task, host: ImageArray, compressed: ImageArray, rng: np.random.Generator
) -> tuple[synth.Forgery, dict[str, Any]]:
    """A forgery that can be seen, and where its region comes from.

    The region is cut from the donor's (of a copy-move: the host's) stored pixels, or from those
    compressed at `jpeg.region`; the fill of a removal is computed from the compressed host.
    """
    photo, source = task.host, host
    if task.donor:
        photo, source = task.donor, load(task.donor, task.max_side)
        if task.host.grey:  # colour would give the splice away
            source = without_colour(source)
    cut_from = _compressed(source, task.jpeg.region)
    make: dict[Kind, Callable[[MaskArray], synth.Forgery]] = {
        "splice": lambda region: synth.splice(compressed, cut_from, region, rng, task.style),
        "copymove": lambda region: synth.copy_move(
            compressed, region, rng, task.style, source=cut_from
        ),
        "removal": lambda region: synth.removal(compressed, region, rng),
    }
    for _ in range(_TRIES):
        region, origin = _region(task.kind, photo, source, rng)
        forgery = make[task.kind](region)
        change = np.abs(forgery.image.astype(np.int16) - compressed)[forgery.mask]
        if change.size and change.mean() >= _MIN_CHANGE:
            return forgery, {"from": origin, "box": from_mask(region)}
    message = f"no {task.kind} of it that can be seen, in {_TRIES} tries"
    raise RejectedInput(task.host.path, "no_forgery", message)


def _region(
    kind: Kind, photo: Photo, image: ImageArray, rng: np.random.Generator
) -> tuple[MaskArray, str]:
    """A region (H, W) worth forging, by preference an outline of about the wanted area."""
    size = image.shape[0], image.shape[1]
    for number in rng.permutation(len(photo.outlines)):
        outline = decode_outline(photo.outlines[number], photo.size)
        if size != photo.size:
            outline = cv2.resize(outline.astype(np.float32), size[::-1]) > 0.5
        if _OUTLINE_AREA[0] <= outline.mean() <= _OUTLINE_AREA[1]:
            return outline, "outline"
    return object_region(image, rng, synth.REGION_AREAS[kind]), "superpixels"
