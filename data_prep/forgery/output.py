"""The files of one forgery: written whole, kept where they are what a run would write now."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.files import read_bytes, sha256_file, write_bytes, write_json
from boxpromptiml.records import Sample, Split
from data_prep.forgery.photographs import ids_of
from data_prep.forgery.plain import ForgerySpec, Provenance
from data_prep.forgery.varied import VariedProvenance, VariedSpec

Spec = ForgerySpec | VariedSpec
Record = Provenance | VariedProvenance
GroupBy = Literal["photograph", "folder"]

# One for each: pydantic writes the whole numbers of a union of records as 1.0.
_RECORDS: Mapping[type[Spec], TypeAdapter[Record]] = {
    ForgerySpec: TypeAdapter(Provenance),
    VariedSpec: TypeAdapter(VariedProvenance),
}


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


class ForgeryResult(NamedTuple):
    """Result for one specification.

    Attributes:
        samples: The forgery and, where it was asked for, its untouched host; empty if rejected.
        made: False if an earlier run had made it.
        error: Why it was rejected.
    """

    samples: list[Sample]
    made: bool
    error: RejectedInput | None = None


@dataclass(frozen=True, slots=True)
class ForgeryMaker:
    """Makes one forgery after another, in any process.

    Attributes:
        out: Folder to write.
        dataset: Name of the dataset in the manifest.
        split: Split of the forgeries and their hosts.
        group_by: What images of one group share, for hosts without a group of their own.
    """

    out: Path
    dataset: str
    split: Split
    group_by: GroupBy

    def __call__(self, spec: Spec) -> ForgeryResult:
        """Make a forgery, unless it is there."""
        try:
            made, now = bring_up_to_date(spec, self.out)
        except RejectedInput as error:
            return ForgeryResult([], made=False, error=error)
        return ForgeryResult(self._samples(spec, made), now)

    def _samples(self, spec: Spec, made: Record) -> list[Sample]:
        files = ForgeryFiles.of(spec.id, spec.ending)
        host = spec.host
        by_photo = f"{Path(host.key).stem}-{host.sha256[:12]}"
        group = by_photo if self.group_by == "photograph" else Path(host.key).parent.as_posix()
        group = host.group or group
        forged = Sample(
            id=spec.id,
            dataset=self.dataset,
            split=self.split,
            group=group,
            image=files.image,
            size=made.size,
            label=1,
            boxes=made.boxes,
            box_origin="mask",
            kind=made.kind,
            mask=files.mask,
            image_sha256=made.image_sha256,
            made_from=spec.made_from,
        )
        if not spec.authentic:
            return [forged]
        untouched = Sample(
            id=f"{spec.id}_authentic",
            dataset=self.dataset,
            split=self.split,
            group=group,
            image=files.authentic,
            size=made.size,
            label=0,
            boxes=(),
            image_sha256=made.authentic_sha256,
            made_from=ids_of(host),
        )
        return [forged, untouched]


def bring_up_to_date(spec: Spec, out: Path) -> tuple[Record, bool]:
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
    write_json(out / files.provenance, _RECORDS[type(spec)].dump_python(record, mode="json"))
    return record, True


def _fresh(spec: Spec, out: Path) -> Record | None:
    """The provenance of a forgery, if all its files are what a run would write now."""
    files = ForgeryFiles.of(spec.id, spec.ending)
    try:
        known = _RECORDS[type(spec)].validate_json(read_bytes(out / files.provenance))
        whole = (
            known.fingerprint == spec.fingerprint
            and sha256_file(out / files.image) == known.image_sha256
            and sha256_file(out / files.mask) == known.mask_sha256
            and (not spec.authentic or sha256_file(out / files.authentic) == known.authentic_sha256)
        )
    except (OSError, UserError, ValidationError):
        return None
    return known if whole else None
