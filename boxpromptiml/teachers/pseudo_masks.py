"""The pseudo-mask job: a manifest in; masks, sidecars, a new manifest and a summary out.

Every image is one unit of work: its mask is written, then its sidecar, each whole or not at all.
So the job can be stopped anywhere and started again; it redoes only what is missing or stale. For
the same reason parts of it (`Shard`) can run at once; a run of the whole job then finds their
masks.
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
from boxpromptiml.io.outputs import PSEUDO_MASKS
from boxpromptiml.io.progress import parallel
from boxpromptiml.io.ray_engine import RayEngine
from boxpromptiml.manifests.manifest import (
    Manifest,
    path_of_row,
    safe_name,
    write_manifest,
)
from boxpromptiml.manifests.remote import address_of, is_remote
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
from boxpromptiml.records import MANIPULATED, UNSURE, Sample, Teacher, TrimapArray
from boxpromptiml.teachers.audit import audit
from boxpromptiml.teachers.consensus import Consensus, Judgement, pseudo_mask
from boxpromptiml.teachers.shards import Shard, claim

_MAX_BOXES = 1000  # of an image; each costs time, and a stranger's annotations may hold a million

cv2.setNumThreads(0)  # OpenCV's thread pool hangs in a forked worker; the workers are the threads


def run_job(
    manifest: Manifest,
    out: Path,
    teacher: Teacher,
    consensus: Consensus,
    num_workers: int = 0,
    shard: Shard | None = None,
    ray: RayEngine | None = None,
) -> dict[str, Any]:
    """Make every pseudo-mask of a manifest that is missing or stale.

    Args:
        manifest: Where the images and boxes are.
        out: Folder for masks/, manifest.jsonl, errors.jsonl and summary.json.
        teacher: Proposes masks for the boxes.
        consensus: How its proposals become one mask.
        num_workers: Worker processes; 0 works in this one.
        shard: Make the masks of this part only, and none of the other files. Parts may run at once
            in one folder; a run of the whole job follows them.
        ray: Run the workers with Ray; see `parallel`.

    Returns:
        The content of summary.json; of a shard, the same without the audit.

    Raises:
        UserError: If `num_workers` is negative, another job is writing into `out`, or a worker was
            killed.
        OSError: If the disk is full or not writable; what is finished stays.
    """
    if num_workers < 0:
        raise UserError(f"num_workers must be 0 or more, got {num_workers}")
    PSEUDO_MASKS.require(out)
    if manifest.path.resolve() == (out / "manifest.jsonl").resolve():
        raise UserError(f"{manifest.path}: would be replaced; name another --out")
    signature = teacher_signature(teacher.settings, consensus.settings)
    samples = manifest.samples
    if shard:
        samples = samples.take(shard.choose(samples))
    with claim(out, shard):
        PSEUDO_MASKS.mark(out)
        if shard is None:
            remove_temporaries(out)  # of runs that were killed while they wrote
        located = replace(manifest, samples=manifest.samples[:0])  # workers get each sample anyway
        work = _MaskMaker(located, out, teacher, consensus, signature)
        tally = _make_all(work, samples, num_workers, ray)
        if shard is None and ray is not None:
            remove_temporaries(out)  # of workers that died
        summary = {
            "images": len(samples),
            "made": tally.made,
            "status": dict(sorted(tally.status.items())),
            "teacher_signature": signature,
            "teacher": teacher.settings,
            "consensus": consensus.settings,
        }
        if shard is None:
            written = _write_manifest(manifest, out, tally, signature)
            summary["audit"] = audit(written)
            write_json(out / "summary.json", summary)
    return summary


def mask_name(sample: Sample) -> str:
    """Path of a sample's mask below the job's folder."""
    return f"masks/{safe_name(sample.id)}.png"


class _Result(NamedTuple):
    """Result for one sample."""

    status: Status | Literal["no_boxes", "rejected"]
    made: bool  # False: there was nothing to make, or an earlier run had made it
    has_mask: bool = False
    error: RejectedInput | None = None


@dataclass
class _Tally:
    """Results of all samples so far: one byte each, and the errors."""

    status: Counter[str] = field(default_factory=Counter)
    made: int = 0
    has_mask: bytearray = field(default_factory=bytearray)
    errors: dict[int, RejectedInput] = field(default_factory=dict)  # by the sample's position

    def add(self, result: _Result) -> None:
        """Count the result of the next sample."""
        if result.error is not None:
            self.errors[len(self.has_mask)] = result.error
        self.status[result.status] += 1
        self.made += result.made
        self.has_mask.append(result.has_mask)


@dataclass(frozen=True)
class _MaskMaker:
    """Brings the pseudo-mask and the sidecar of one sample up to date."""

    manifest: Manifest
    out: Path
    teacher: Teacher
    consensus: Consensus
    signature: str

    def __call__(self, sample: Sample) -> _Result:
        """Bring a sample up to date; problems with its files become a rejection."""
        if sample.label == 0:
            return _Result("authentic", made=False)
        if not sample.boxes:
            return _Result("no_boxes", made=False)
        try:
            status, made = self._bring_up_to_date(sample)
        except RejectedInput as error:
            root = self.manifest.header.image_root
            if is_remote(root):  # its path is that of a copy
                where = address_of(root, sample.image)
                error = RejectedInput(where, error.reason, error.message)
            return _Result("rejected", made=False, error=error)
        return _Result(status, made, has_mask=True)

    def _bring_up_to_date(self, sample: Sample) -> tuple[Status, bool]:
        if len(sample.boxes or ()) > _MAX_BOXES:
            message = f"has {len(sample.boxes or ())} boxes; {_MAX_BOXES} is the most"
            raise RejectedInput(self.manifest.image_path(sample), "too_many_boxes", message)
        path = path_of_row(self.out, mask_name(sample))
        known = sample.image_sha256 or images.probe(self.manifest.image_path(sample)).sha256
        wanted = expected_fingerprint(sample, known, self.signature)
        if (fresh := _fresh_sidecar(path, wanted)) and not self._changed(sample, path, known):
            return fresh.status, False
        image_path = self.manifest.image_path(sample)
        image, info = images.read_image(image_path)
        if image.shape[:2] != sample.size:
            raise RejectedInput(image_path, "size_mismatch", "is not of the manifest's size")
        if info.sha256 != known:
            raise RejectedInput(image_path, "changed", "is not the file that was imported")
        boxes = geometry.as_array(sample.boxes or ())
        trimap, judgements = pseudo_mask(self.teacher, image, boxes, self.consensus)
        png = images.encode_png(trimap)
        write_bytes(path, png)
        status = _status(trimap, judgements)
        write_sidecar(
            path,
            Sidecar(
                schema_version=SIDECAR_VERSION,
                signature=wanted,
                image_sha256=known,
                mask_sha256=sha256_bytes(png),
                boxes=sample.boxes or (),
                teacher={"teacher": self.teacher.settings, "consensus": self.consensus.settings},
                scores=tuple(round(one.score, 6) for one in judgements),
                notes=tuple(one.note for one in judgements if one.note),
                status=status,
                unsure=round(float(np.mean(trimap == UNSURE)), 6),
            ),
        )
        return status, True

    def _changed(self, sample: Sample, mask: Path, known: str) -> bool:
        """Whether the image on this machine is another one than `known`, if it is newer."""
        if is_remote(self.manifest.header.image_root):
            return False
        image = self.manifest.image_path(sample)
        is_newer = image.is_file() and image.stat().st_mtime_ns > mask.stat().st_mtime_ns
        return is_newer and images.probe(image).sha256 != known


def _fresh_sidecar(path: Path, wanted: str) -> Sidecar | None:
    """The sidecar of a mask, if both are what a run would write now."""
    try:
        sidecar = read_sidecar(path)
    except UserError:
        return None
    whole = sidecar.signature == wanted and mask_sha256(path) == sidecar.mask_sha256
    return sidecar if whole else None


def _status(trimap: TrimapArray, judgements: Iterable[Judgement]) -> Status:
    if not (trimap == MANIPULATED).any():
        return "unsure"
    return "degenerate" if any(one.note for one in judgements) else "ok"


def _make_all(
    work: _MaskMaker, samples: Sequence[Sample], num_workers: int, ray: RayEngine | None
) -> _Tally:
    tally = _Tally()
    for result in parallel(work, samples, num_workers, "pseudo-masks", ray=ray):
        if result.error is not None:
            sys.stderr.write(f"rejected {result.error}\n")
        tally.add(result)
    return tally


def _write_manifest(manifest: Manifest, out: Path, tally: _Tally, signature: str) -> Manifest:
    """Write manifest.jsonl, and errors.jsonl with what the manifest leaves out."""
    kept = (
        replace(sample, pseudo_mask=mask_name(sample)) if has_mask else sample
        for position, (sample, has_mask) in enumerate(
            zip(manifest.samples, tally.has_mask, strict=True)
        )
        if position not in tally.errors
    )
    header = replace(
        manifest.header,
        image_root=manifest.image_root_from(out / "manifest.jsonl"),
        pseudo_root=".",
        teacher_signature=signature,
    )
    written = write_manifest(out / "manifest.jsonl", header, kept)
    write_jsonl(out / "errors.jsonl", [error.as_row() for error in tally.errors.values()])
    return written
