"""The pseudo-mask job: a manifest in; masks, sidecars, a new manifest and a summary out.

Every image is one unit of work: its mask is written, then its sidecar, each whole or not at all.
So the job can be stopped anywhere and started again; it redoes only what is missing or stale. For
the same reason parts of it (`Shard`) can run at once; a run of the whole then finds the masks made.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from boxpromptiml import geometry
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.files import (
    remove_temporaries,
    sha256_bytes,
    write_bytes,
    write_json,
    write_jsonl,
)
from boxpromptiml.io.progress import parallel
from boxpromptiml.manifests.manifest import (
    Manifest,
    confined,
    relative_root,
    safe_name,
    write_manifest,
)
from boxpromptiml.manifests.sidecars import (
    SIDECAR_VERSION,
    Sidecar,
    Status,
    expected_fingerprint,
    mask_sha256,
    read_sidecar,
    teacher_signature,
    write_sidecar,
)
from boxpromptiml.records import MANIPULATED, UNSURE, Proposal, Sample, Teacher, TrimapArray
from boxpromptiml.teachers.audit import audit
from boxpromptiml.teachers.consensus import Consensus, pseudo_mask
from boxpromptiml.teachers.shards import Shard, claim

cv2.setNumThreads(0)  # OpenCV's thread pool hangs in a forked worker; the workers are the threads


class Outcome(NamedTuple):
    """What became of one sample."""

    status: Status | Literal["no_boxes", "rejected"]
    made: bool  # False: an earlier run had made it
    has_mask: bool = False
    error: RejectedInput | None = None


@dataclass(frozen=True)
class PseudoMasks:
    """The work on one sample: its pseudo-mask and sidecar are brought up to date."""

    manifest: Manifest
    out: Path
    teacher: Teacher
    consensus: Consensus
    signature: str

    def __call__(self, sample: Sample) -> Outcome:
        """Bring one sample up to date; what is wrong with it becomes a rejected outcome."""
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
        return Outcome(status, made, has_mask=True)

    def _bring_up_to_date(self, sample: Sample, path: Path) -> tuple[Status, bool]:
        image_path = self.manifest.image_path(sample)
        known = sample.image_sha256 or images.probe(image_path).sha256
        wanted = expected_fingerprint(sample, known, self.signature)
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
                teacher={"teacher": self.teacher.settings, "consensus": self.consensus.settings},
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


def _status(levels: TrimapArray, proposals: Iterable[Proposal]) -> Status:
    if not (levels == MANIPULATED).any():
        return "unsure"
    return "degenerate" if any(proposal.note for proposal in proposals) else "ok"


@dataclass
class Found:
    """What became of all samples: a byte each, and the errors."""

    status: Counter[str] = field(default_factory=Counter)
    made: int = 0
    has_mask: bytearray = field(default_factory=bytearray)
    errors: dict[int, RejectedInput] = field(default_factory=dict)  # by the sample's position

    def add(self, outcome: Outcome) -> None:
        """The next sample's."""
        if outcome.error is not None:
            self.errors[len(self.has_mask)] = outcome.error
        self.status[outcome.status] += 1
        self.made += outcome.made
        self.has_mask.append(outcome.has_mask)


def run_job(
    manifest: Manifest,
    out: Path,
    teacher: Teacher,
    consensus: Consensus,
    num_workers: int = 0,
    shard: Shard | None = None,
) -> dict[str, Any]:
    """Make every pseudo-mask of a manifest that is missing or stale.

    Args:
        manifest: Where the images and boxes are.
        out: Folder for masks/, manifest.jsonl, errors.jsonl and summary.json.
        teacher: Answers the boxes.
        consensus: How its answers become one mask.
        num_workers: Processes that work beside this one; 0 works in this one.
        shard: Make the masks of this part only, and none of the other files. Parts may run at once
            in one folder; a run without follows.

    Returns:
        The content of summary.json; of a shard, the same without the audit.

    Raises:
        UserError: If another job is writing into `out`, or a worker was killed.
        OSError: If the disk is full or not writable; what is finished stays.
    """
    if num_workers < 0:
        raise UserError(f"num_workers must be 0 or more, got {num_workers}")
    signature = teacher_signature(teacher.settings, consensus.settings)
    samples = manifest.samples
    if shard:
        samples = samples.take(shard.choose(samples))
    with claim(out, shard):
        if shard is None:
            remove_temporaries(out)  # of runs that were killed while they wrote
        work = PseudoMasks(manifest, out, teacher, consensus, signature)
        found = _all(work, samples, num_workers)
        summary = {
            "images": len(samples),
            "made": found.made,
            "status": dict(sorted(found.status.items())),
            "teacher_signature": signature,
            "teacher": teacher.settings,
            "consensus": consensus.settings,
        }
        if shard is None:
            written = _write_manifest(manifest, out, found, signature)
            summary["audit"] = audit(written)
            write_json(out / "summary.json", summary)
    return summary


def _write_manifest(manifest: Manifest, out: Path, found: Found, signature: str) -> Manifest:
    """Write manifest.jsonl, and errors.jsonl with what the manifest leaves out."""
    kept = (
        replace(sample, pseudo_mask=mask_name(sample)) if has_mask else sample
        for position, (sample, has_mask) in enumerate(
            zip(manifest.samples, found.has_mask, strict=True)
        )
        if position not in found.errors
    )
    header = replace(
        manifest.header,
        image_root=relative_root(
            out / "manifest.jsonl", manifest.path.parent / manifest.header.image_root
        ),
        pseudo_root=".",
        teacher_signature=signature,
    )
    written = write_manifest(out / "manifest.jsonl", header, kept)
    write_jsonl(out / "errors.jsonl", [error.as_row() for error in found.errors.values()])
    return written


def _all(work: PseudoMasks, samples: Sequence[Sample], num_workers: int) -> Found:
    found = Found()
    for outcome in parallel(work, samples, num_workers, "pseudo-masks"):
        if outcome.error is not None:
            sys.stderr.write(f"rejected {outcome.error}\n")
        found.add(outcome)
    return found
