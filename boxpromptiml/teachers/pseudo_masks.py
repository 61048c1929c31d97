"""The pseudo-mask job: a manifest in; masks, sidecars, a new manifest and a summary out.

Every image is one unit of work: its mask is written, then its sidecar, each whole or not at all.
So the job can be stopped anywhere and started again; it redoes only what is missing or stale. For
the same reason parts of it (`Shard`) can run at once; a run of the whole then finds the masks made.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.files import remove_temporaries, write_json, write_jsonl
from boxpromptiml.manifests.manifest import Manifest, relative_root, write_manifest
from boxpromptiml.manifests.sidecars import teacher_signature
from boxpromptiml.records import Teacher
from boxpromptiml.teachers.audit import audit
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.shards import Shard, claim, die_with_job
from boxpromptiml.teachers.work import Outcome, PseudoMasks, mask_name


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
    signature = teacher_signature(teacher.signature, consensus.signature)
    part = manifest
    if shard:
        chosen = manifest.samples.take(shard.choose(manifest.samples))
        part = replace(manifest, samples=chosen)
    with claim(out, shard):
        if shard is None:
            remove_temporaries(out)  # of runs that were killed while they wrote
        work = PseudoMasks(part, out, teacher, consensus, signature)
        found = _all(work, num_workers)
        summary = {
            "images": len(work),
            "made": found.made,
            "status": dict(sorted(found.status.items())),
            "teacher_signature": signature,
            "teacher": teacher.signature,
            "consensus": consensus.signature,
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


def _all(work: PseudoMasks, num_workers: int) -> Found:
    loader: DataLoader[Outcome] = DataLoader(
        work,
        batch_size=None,
        num_workers=num_workers,
        worker_init_fn=die_with_job,
        collate_fn=_as_is,  # type: ignore[arg-type] # one outcome: there are no batches
    )
    found = Found()
    try:
        for outcome in _with_progress(loader, len(work)):
            found.add(outcome)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        message = "a worker was killed, most likely for want of memory; run the same command again"
        raise UserError(f"{message}, with fewer --num_workers: it goes on here") from error
    return found


def _as_is(outcome: Outcome) -> Outcome:
    return outcome


def _with_progress(loader: DataLoader[Outcome], total: int) -> Iterable[Outcome]:
    columns = (
        TextColumn("pseudo-masks"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total, rate="")
        for outcome in loader:
            if outcome.failure is not None:
                raise outcome.failure
            if outcome.error is not None:
                progress.console.print(f"rejected {outcome.error}", markup=False, soft_wrap=True)
            speed = progress.tasks[0].speed
            progress.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")
            yield outcome
