"""The JSON file beside every pseudo-mask that says from what it was made.

A pseudo-mask counts only while its sidecar matches what is asked for: the same image bytes, the
same boxes, the same teacher. So a changed teacher or a replaced image never trains silently on old
masks (invariant 3 of the design).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import fingerprint, sha256_file, write_json
from boxpromptiml.records import Box, Description, Sample

SIDECAR_VERSION = 1

Status = Literal["ok", "degenerate", "unsure", "authentic"]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """How one pseudo-mask came to be.

    Attributes:
        schema_version: Version of this format.
        signature: Hash of image, boxes and teacher; see `expected_fingerprint`.
        image_sha256: Hash of the image file that the teacher saw.
        mask_sha256: Hash of the pseudo-mask's PNG file.
        boxes: The prompts, in pixels of the stored image.
        teacher: The teacher's own description and the fusion's settings.
        scores: The teacher's confidence in each proposal, in [0, 1].
        notes: What was out of the ordinary, one entry a proposal that has one.
        status: `ok`; `degenerate` if a proposal had to be replaced; `unsure` if nothing of the
            mask is sure; `authentic` if there was nothing to prompt.
        unsure: Share of the pixels at level 127.
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
    """What a sidecar must carry for a sample to trust its pseudo-mask."""
    boxes = [[float(v) for v in box] for box in sample.boxes or ()]
    return fingerprint({"image": image_sha256, "boxes": boxes, "teacher": teacher_signature})


def teacher_signature(teacher: Description, consensus: Description) -> str:
    """Hash of a teacher's description together with how its answers are fused."""
    return fingerprint({"teacher": teacher, "consensus": consensus})


def sidecar_path(mask_path: Path) -> Path:
    """`x.png` -> `x.json`."""
    return mask_path.with_suffix(".json")


def mask_sha256(mask_path: Path) -> str | None:
    """Hash of a pseudo-mask's file, None if it cannot be read."""
    try:
        return sha256_file(mask_path)
    except OSError:
        return None


def write_sidecar(mask_path: Path, sidecar: Sidecar) -> None:
    """Write atomically; call it after the mask itself is in place."""
    write_json(sidecar_path(mask_path), _SIDECAR.dump_python(sidecar, mode="json"))


def read_sidecar(mask_path: Path) -> Sidecar:
    """Read the sidecar of a pseudo-mask.

    Raises:
        UserError: If it is missing, damaged or of another schema.
    """
    path = sidecar_path(mask_path)
    try:
        sidecar = _SIDECAR.validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; run `python -m data_prep pseudo-masks` again") from error
    except (OSError, ValidationError) as error:
        raise UserError(f"{path}: not a readable sidecar: {error}") from error
    if sidecar.schema_version != SIDECAR_VERSION:
        raise UserError(f"{path}: sidecar schema {sidecar.schema_version}, not {SIDECAR_VERSION}")
    return sidecar
