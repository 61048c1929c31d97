"""A forgery by the varied recipe: its specification, its making, and its provenance."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.io.files import fingerprint
from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.synth.degradation import jpeg
from boxpromptiml.synth.finishing import Finish, framed, saved_before
from boxpromptiml.synth.forge import Forgery, ForgeryKind
from boxpromptiml.synth.regions import object_region, resized_region, simple_shape
from boxpromptiml.synth.varied import varied_copy, varied_removal, varied_splice
from boxpromptiml.synth.variety import Variety, drawn
from data_prep.forgery.outlines import decode_outline
from data_prep.forgery.photographs import Photo, ids_of, load, named, without_colour
from data_prep.forgery.plain import Content, Made, made

_VERSION = 1  # of the method; another one makes all forgeries anew
_MAX_TRIES = 20  # for each region
_FOUND_AREA = (0.01, 0.2)  # fraction of the image, of superpixels and shapes
_REMOVED_AREA = (0.005, 0.1)  # of what is removed; more cannot be filled credibly
_MIN_CHANGE = 6.0  # grey levels, mean over the mask; a forgery below it changes nothing
_LEAST = 4  # grey levels that a pixel changes by at least; less is compression
_CHANGED = 0.4  # fraction of a region's pixels that have to change by more

Origin = Literal["object", "superpixels", "shape"]
ORIGINS: tuple[Origin, ...] = ("object", "superpixels", "shape")


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """Where one region comes from.

    Attributes:
        origin: A given mask, superpixels, or a simple shape.
        donor: Photograph that a spliced region is cut from; None for the host.
        outline: Image whose mask lends the outline of an object; for a splice it is the donor.
    """

    origin: Origin
    donor: Photo | None
    outline: Photo | None


@dataclass(frozen=True, slots=True)
class VariedProvenance(Made):
    """How one forgery of the varied recipe was made, in provenance/<id>.json.

    Attributes:
        regions: For each region: `from` (object, superpixels, shape), `donor` and `outline` like
            the host (None where there is none), `saved` (JPEG quality of the donor, None without),
            and what was drawn: scale, degrees, place, method and so on.
        before: `size` of the host when it was forged, and the JPEG qualities it was `saved` with.
        after: What happened to the whole image; see `Finish`.
    """

    regions: tuple[dict[str, Any], ...]
    before: dict[str, Any]
    after: dict[str, Any]


class _Composite(NamedTuple):
    image: ImageArray
    mask: MaskArray
    regions: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class VariedSpec:
    """Everything that determines the bytes of one varied forgery.

    Attributes:
        id: Names the files.
        seed: Of the random generator.
        kind: Splice, copy-move or removal.
        host: Photograph that is forged.
        regions: Where its regions come from.
        saves: How often it is saved as JPEG after the forgery; 0 is a lossless PNG.
        variety: Ranges of everything that is drawn.
        authentic: Whether the untouched host is saved too.
    """

    id: str
    seed: tuple[int, ...]
    kind: ForgeryKind
    host: Photo
    regions: tuple[RegionSpec, ...]
    saves: int
    variety: Variety
    authentic: bool

    @property
    def ending(self) -> str:
        """Ending of the image files: `.jpg`, or `.png` if it is never saved as JPEG."""
        return ".jpg" if self.saves else ".png"

    @property
    def made_from(self) -> tuple[str, ...] | None:
        """Ids of host, donors and outlines in the manifests that list them; None if none does."""
        others = [photo for region in self.regions for photo in (region.donor, region.outline)]
        return ids_of(self.host, *others)

    @property
    def fingerprint(self) -> str:
        """Hash of all attributes, with the photographs by their content, not by their paths."""
        regions = [
            [one.origin, *(_content(photo) for photo in (one.donor, one.outline))]
            for one in self.regions
        ]
        settings = [self.seed, self.kind, self.saves, asdict(self.variety), self.authentic]
        return fingerprint(["varied", _VERSION, self.id, self.host.sha256, regions, settings])

    def make(self) -> tuple[VariedProvenance, Content]:
        """Make the forgery.

        Raises:
            RejectedInput: If a photograph cannot be read, or no region of it makes a forgery.
        """
        rng = np.random.default_rng(self.seed)
        frame = framed(load(self.host, None), self.variety, rng)
        host, qualities = saved_before(frame, self.variety, rng)
        size = host.shape[0], host.shape[1]
        finish = Finish.draw(self.variety, self.saves, size, rng)
        forged = self._forged(host, rng)
        mask = finish.mask(forged.mask)
        content = Content(
            image=finish.file(forged.image),
            mask=images.encode_png(mask.astype(np.uint8) * 255),
            authentic=finish.file(host) if self.authentic else None,
        )
        record = VariedProvenance(
            fingerprint=self.fingerprint,
            **made(self.kind, self.host, content, mask, rng),
            regions=forged.regions,
            before={"size": size, "saved": qualities},
            after=asdict(finish),
        )
        return record, content

    def _forged(self, host: ImageArray, rng: np.random.Generator) -> _Composite:
        """The host with all its regions forged; every one of them can be seen.

        Raises:
            RejectedInput: If a donor cannot be read, or a region finds no place.
        """
        image, mask = host, np.zeros(host.shape[:2], dtype=bool)
        regions: list[dict[str, Any]] = []
        for region in self.regions:
            donor = load(region.donor, None) if region.donor else None
            if donor is not None and self.host.grey:  # colour would give the splice away
                donor = without_colour(donor)
            for _ in range(_MAX_TRIES):
                forgery, facts = self._with_region(region, image, donor, rng)
                if self.host.grey:
                    forgery = Forgery(
                        without_colour(forgery.image), forgery.mask, self.kind, forgery.parameters
                    )
                together = mask | forgery.mask
                if self._permitted(host, forgery, together):
                    image, mask = forgery.image, together
                    regions.append(facts)
                    break
        if not regions:
            message = f"no {self.kind} of it that can be seen, in {_MAX_TRIES} tries"
            raise RejectedInput(self.host.path, "no_forgery", message)
        return _Composite(image, mask, tuple(regions))

    def _permitted(self, host: ImageArray, forgery: Forgery, together: MaskArray) -> bool:
        """Whether a region differs from the host, and all regions cover a permitted area."""
        change = np.abs(forgery.image.astype(np.int16) - host)[forgery.mask]
        low, high = self.variety.area
        return (
            change.size > 0
            and float(change.mean()) >= _MIN_CHANGE
            and float((change.max(axis=1) >= _LEAST).mean()) >= _CHANGED
            and low <= forgery.mask.mean() <= together.mean() <= high
        )

    def _with_region(
        self,
        region: RegionSpec,
        image: ImageArray,
        donor: ImageArray | None,
        rng: np.random.Generator,
    ) -> tuple[Forgery, dict[str, Any]]:
        """An image with one more region forged, and the facts for its provenance."""
        source = image if donor is None else donor
        where, origin = self._region(region, source, rng)
        quality = drawn(self.variety.region_saved, rng) if self.kind != "removal" else None
        saved = None if quality is None else round(quality)
        cut_from = source if saved is None else jpeg(source, saved)
        if self.kind == "splice":
            forgery = varied_splice(image, cut_from, where, self.variety, rng)
        elif self.kind == "copymove":
            textured = origin == "shape" and rng.random() < self.variety.alike
            forgery = varied_copy(image, where, self.variety, rng, cut_from, textured)
        else:
            forgery = varied_removal(image, where, self.variety, rng)
        facts = {
            "from": origin,
            "donor": named(region.donor) if region.donor else None,
            "outline": named(region.outline) if region.outline else None,
            "saved": saved,
        }
        return forgery, facts | forgery.parameters

    def _region(
        self, region: RegionSpec, source: ImageArray, rng: np.random.Generator
    ) -> tuple[MaskArray, Origin]:
        """A region (H, W) of the image that it is cut from, or that is filled."""
        size = source.shape[0], source.shape[1]
        removed = self.kind == "removal"
        area = _REMOVED_AREA if removed else _FOUND_AREA
        if region.outline is not None:
            counts = region.outline.outlines[int(rng.integers(len(region.outline.outlines)))]
            outline = resized_region(decode_outline(counts, region.outline.size), size)
            if not removed or outline.mean() <= area[1]:
                return outline, "object"
        if region.origin == "shape":
            return simple_shape(size, rng, area), "shape"
        return object_region(source, rng, area), "superpixels"


def _content(photo: Photo | None) -> list[Any] | None:
    """A photograph by its content, for a fingerprint."""
    if photo is None:
        return None
    return [photo.sha256, [outline.decode() for outline in photo.outlines]]
