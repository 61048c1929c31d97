"""The JSON file beside every pseudo-mask that records what it was made from.

A pseudo-mask is used only while its sidecar matches the same image bytes, boxes and teacher. So
after a change of the teacher or an image, old masks are never silently used for training.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import fingerprint, sha256_file, write_json
from boxpromptiml.io.strict_json import read_as
from boxpromptiml.records import Box, Description, Sample

SIDECAR_VERSION = 1

Status = Literal["ok", "degenerate", "unsure", "authentic"]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Record of how one pseudo-mask was made.

    Attributes:
        schema_version: Version of this format.
        signature: Fingerprint of image, boxes and teacher; see `expected_fingerprint`.
        image_sha256: Hash of the image file that the teacher saw.
        mask_sha256: Hash of the pseudo-mask's PNG file.
        boxes: The prompts, in pixels of the stored image.
        teacher: The settings of the teacher and of the fusion of its proposals.
        scores: The teacher's confidence in each proposal, in [0, 1].
        notes: Anything unusual, one entry per proposal that has a note.
        status: `ok`; `degenerate` if a proposal had to be replaced; `unsure` if nothing of the
            mask is sure; `authentic` if there was nothing to prompt.
        unsure: Fraction of the pixels that are unsure (127), in [0, 1].
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    schema_version: int
    signature: str
    image_sha256: str
    mask_sha256: str
    boxes: tuple[Box, ...]
    teacher: dict[str, Any]
    scores: tuple[float, ...]
    notes: tuple[str, ...]
    status: Status
    unsure: float


_SIDECAR = TypeAdapter(Sidecar)


def expected_fingerprint(sample: Sample, image_sha256: str, teacher_signature: str) -> str:
    """The fingerprint that a sidecar must carry for its pseudo-mask to be used.

    Args:
        sample: With the boxes that prompt the teacher.
        image_sha256: Of the image file as it is now.
        teacher_signature: Fingerprint of the teacher, as the manifest's header names it.
    """
    boxes = [[float(v) for v in box] for box in sample.boxes or ()]
    return fingerprint({"image": image_sha256, "boxes": boxes, "teacher": teacher_signature})


def teacher_signature(teacher: Description, consensus: Description) -> str:
    """Fingerprint of a teacher's settings together with how its proposals are fused."""
    return fingerprint({"teacher": teacher, "consensus": consensus})


def sidecar_path(mask_path: Path) -> Path:
    """Path of the sidecar of a pseudo-mask: `x.json` for `x.png`."""
    return mask_path.with_suffix(".json")


def mask_sha256(mask_path: Path) -> str | None:
    """SHA-256 of a pseudo-mask's file; None if it cannot be read."""
    try:
        return sha256_file(mask_path)
    except OSError:
        return None


def write_sidecar(mask_path: Path, sidecar: Sidecar) -> None:
    """Write the sidecar of a pseudo-mask, atomically; call it after the mask itself is in place."""
    write_json(sidecar_path(mask_path), _SIDECAR.dump_python(sidecar, mode="json"))


def read_sidecar(mask_path: Path) -> Sidecar:
    """Read the sidecar of a pseudo-mask.

    Raises:
        UserError: If it is missing, damaged or of another schema.
    """
    path = sidecar_path(mask_path)
    if not path.exists():
        raise UserError(f"{path}: missing; run `python -m data_prep pseudo-masks` again")
    sidecar = read_as(_SIDECAR, path)
    if sidecar.schema_version != SIDECAR_VERSION:
        raise UserError(f"{path}: sidecar schema {sidecar.schema_version}, not {SIDECAR_VERSION}")
    return sidecar
