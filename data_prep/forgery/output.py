"""The files of one forgery: written whole, kept where they are what a run would write now."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from boxpromptiml.io.files import sha256_file, write_bytes, write_json
from boxpromptiml.records import Box
from boxpromptiml.synth.forge import ForgeryKind
from data_prep.forgery.photographs import Photo


class ForgeryFiles(NamedTuple):
    """Where the files of a forgery lie, relative to the output folder."""

    image: str
    mask: str
    authentic: str
    provenance: str

    @classmethod
    def of(cls, name: str, ending: str = ".jpg") -> "ForgeryFiles":
        """The paths for the id of a forgery whose images have this ending."""
        return cls(
            f"images/{name}{ending}",
            f"masks/{name}.png",
            f"images/{name}_authentic{ending}",
            f"provenance/{name}.json",
        )


class Content(NamedTuple):
    """The bytes of a forgery's image and mask, and of its untouched host where it is saved too."""

    image: bytes
    mask: bytes
    authentic: bytes | None


class Record(Protocol):
    """What the provenance records of both recipes hold."""

    @property
    def fingerprint(self) -> str:
        """Of the specification; with another one the forgery is made anew."""
        ...

    @property
    def image_sha256(self) -> str:
        """Of the image."""
        ...

    @property
    def mask_sha256(self) -> str:
        """Of the mask."""
        ...

    @property
    def authentic_sha256(self) -> str | None:
        """Of the host saved alike; None without."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        ...

    @property
    def kind(self) -> ForgeryKind:
        """Splice, copy-move or removal."""
        ...

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Coarse ones around the mask, x0 y0 x1 y1."""
        ...


R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)


class Spec(Protocol[R_co]):
    """Everything that determines the bytes of one forgery, by either recipe."""

    @property
    def id(self) -> str:
        """Names the files."""
        ...

    @property
    def host(self) -> Photo:
        """Photograph that is forged."""
        ...

    @property
    def authentic(self) -> bool:
        """Whether the untouched host is saved too."""
        ...

    @property
    def ending(self) -> str:
        """Of the image files."""
        ...

    @property
    def made_from(self) -> tuple[str, ...] | None:
        """Ids of the images that it is made from; None where they have none."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of all that determines the bytes."""
        ...

    @property
    def record_type(self) -> type[R_co]:
        """Type of the provenance record."""
        ...

    def make(self) -> tuple[R_co, Content]:
        """Make the forgery.

        Raises:
            RejectedInput: If a photograph cannot be read, or no region of it makes a forgery.
        """
        ...


def bring_up_to_date(spec: Spec[R], out: Path) -> tuple[R, bool]:
    """Make a forgery, unless its files are what this would write.

    The provenance is written last, so that a stopped run leaves no forgery that looks complete.

    Returns:
        The provenance, and whether the forgery was made now.

    Raises:
        RejectedInput: If a photograph cannot be read, or no region of it makes a forgery.
    """
    known = _fresh(spec, out)
    if known:
        return known, False
    record, content = spec.make()
    files = ForgeryFiles.of(spec.id, spec.ending)
    if content.authentic:
        write_bytes(out / files.authentic, content.authentic)
    write_bytes(out / files.image, content.image)
    write_bytes(out / files.mask, content.mask)
    write_json(out / files.provenance, _adapter(spec.record_type).dump_python(record, mode="json"))
    return record, True


@cache
def _adapter(record_type: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(record_type)


def _fresh(spec: Spec[R], out: Path) -> R | None:
    """The provenance of a forgery, if all its files are what a run would write now."""
    files = ForgeryFiles.of(spec.id, spec.ending)
    try:
        known: R = _adapter(spec.record_type).validate_json((out / files.provenance).read_bytes())
        whole = (
            known.fingerprint == spec.fingerprint
            and sha256_file(out / files.image) == known.image_sha256
            and sha256_file(out / files.mask) == known.mask_sha256
            and (not spec.authentic or sha256_file(out / files.authentic) == known.authentic_sha256)
        )
    except (OSError, ValidationError):
        return None
    return known if whole else None
