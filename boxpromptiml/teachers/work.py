"""The unit of work of the pseudo-mask job: one image's mask and sidecar, made or found made."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from torch.utils.data import Dataset

from boxpromptiml import geometry
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.files import sha256_bytes, write_bytes
from boxpromptiml.manifests.manifest import Manifest, confined, safe_name
from boxpromptiml.manifests.sidecars import (
    SIDECAR_VERSION,
    Sidecar,
    Status,
    expected_signature,
    mask_sha256,
    read_sidecar,
    write_sidecar,
)
from boxpromptiml.records import MANIPULATED, UNSURE, LevelArray, Proposal, Sample, Teacher
from boxpromptiml.teachers.consensus import Consensus, pseudo_mask

cv2.setNumThreads(0)  # OpenCV's thread pool hangs in a forked worker; the workers are the threads


class Outcome(NamedTuple):
    """What became of one sample."""

    status: Status | Literal["no_boxes", "rejected"]
    made: bool  # False: an earlier run had made it
    has_mask: bool = False
    error: RejectedInput | None = None
    failure: OSError | None = None  # of the disk: the job cannot go on


@dataclass(frozen=True)
class PseudoMasks(Dataset[Outcome]):
    """The units of work, one a sample; getting one does it."""

    manifest: Manifest
    out: Path
    teacher: Teacher
    consensus: Consensus
    signature: str

    def __len__(self) -> int:
        return len(self.manifest.samples)

    def __getitem__(self, index: int) -> Outcome:
        sample = self.manifest.samples[index]
        if sample.label == 0:
            return Outcome("authentic", made=False)
        if not sample.boxes:
            return Outcome("no_boxes", made=False)
        try:
            status, made = self._bring_up_to_date(sample, confined(self.out, mask_name(sample)))
        except RejectedInput as error:
            return Outcome("rejected", made=False, error=error)
        except UserError as error:  # its path leads out of the root
            rejected = RejectedInput(sample.image, "bad_path", str(error))
            return Outcome("rejected", made=False, error=rejected)
        except OSError as error:  # raised by the job: from a worker it would come as a traceback
            return Outcome("rejected", made=False, failure=error)
        return Outcome(status, made, has_mask=True)

    def _bring_up_to_date(self, sample: Sample, path: Path) -> tuple[Status, bool]:
        image_path = self.manifest.image_path(sample)
        known = sample.image_sha256 or images.probe(image_path).sha256
        wanted = expected_signature(sample, known, self.signature)
        fresh = _fresh(path, wanted)
        if fresh:
            return fresh.status, False
        image, info = images.read_image(image_path)
        if image.shape[:2] != sample.size:
            raise RejectedInput(image_path, "size_mismatch", "is not of the manifest's size")
        if info.sha256 != known:
            raise RejectedInput(image_path, "changed", "is not the file that was imported")
        boxes = geometry.as_array(sample.boxes or ())
        levels, proposals = pseudo_mask(self.teacher, image, boxes, self.consensus)
        png = images.encode_png(levels)
        write_bytes(path, png)
        status = _status(levels, proposals)
        write_sidecar(
            path,
            Sidecar(
                schema_version=SIDECAR_VERSION,
                signature=wanted,
                image_sha256=known,
                mask_sha256=sha256_bytes(png),
                boxes=sample.boxes or (),
                teacher={"teacher": self.teacher.signature, "consensus": self.consensus.signature},
                scores=tuple(round(p.score, 6) for p in proposals),
                notes=tuple(p.note for p in proposals if p.note),
                status=status,
                unsure=round(float(np.mean(levels == UNSURE)), 6),
            ),
        )
        return status, True


def mask_name(sample: Sample) -> str:
    """Path of a sample's mask below the job's folder."""
    return f"masks/{safe_name(sample.id)}.png"


def _fresh(path: Path, wanted: str) -> Sidecar | None:
    """The sidecar, if it and the mask are what a run would write now."""
    try:
        sidecar = read_sidecar(path)
    except UserError:
        return None
    whole = sidecar.signature == wanted and mask_sha256(path) == sidecar.mask_sha256
    return sidecar if whole else None


def _status(levels: LevelArray, proposals: Iterable[Proposal]) -> Status:
    if not (levels == MANIPULATED).any():
        return "unsure"
    return "degenerate" if any(proposal.note for proposal in proposals) else "ok"
