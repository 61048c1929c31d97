"""`python -m data_prep forgeries`: any folder of photographs to forgeries with masks and boxes."""

import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from filelock import FileLock, Timeout

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, RejectedInput, UserError
from boxpromptiml.io.files import write_jsonl
from boxpromptiml.io.progress import parallel
from boxpromptiml.manifests.manifest import Header, write_manifest
from boxpromptiml.records import Sample, Split
from boxpromptiml.synth.forge import KINDS, ForgeryStyle
from data_prep.forgery.make import Files, Provenance, Task, bring_up_to_date
from data_prep.forgery.outlines import find_outlines
from data_prep.forgery.photographs import Photo, Screening, list_photographs
from data_prep.forgery.plan import MIN_DONORS, Quality, Settings, plan

cv2.setNumThreads(0)  # OpenCV's thread pool hangs in a forked worker; the workers are the threads


def forgeries(
    photos: list[Path],
    out: Path,
    count: int,
    seed: int = 0,
    split: Split = "train",
    name: str = "forgeries",
    regions: Path | None = None,
    authentic: int | None = None,
    host_quality: Quality | None = None,
    region_quality: Quality | None = None,
    quality: Quality = (75, 98),
    style: ForgeryStyle = ForgeryStyle(),
    max_side: int | None = None,
    min_side: int = 64,
    num_workers: int = 0,
) -> int:
    """Forge photographs: splices, copy-moves and removals with exact masks and coarse boxes.

    Run it again to go on after a stop: what is there and was made with the same settings is kept.
    Writes into `out`: images/, masks/ (PNG 0 | 255), provenance/ (one JSON a forgery: host, donor,
    parameters, JPEG qualities), manifest.jsonl and errors.jsonl. The images of one host photograph
    share a group. Donors come from the same folders: give every split folders of its own. Exit
    status 3 if a photograph or a forgery was rejected.

    Args:
        photos: Folders of photographs, with all folders below them.
        out: Folder to write.
        count: Of forgeries; every photograph is host in turn.
        seed: The same seed gives the same bytes.
        split: The split that all images get.
        name: Name of the dataset in the manifest; begins every id.
        regions: Objects to cut out or to remove: a COCO file (polygons, run lengths; `file_name` as
            below --photos), or a folder of masks named as the photographs. Where a photograph has
            none of fitting size, groups of superpixels serve.
        authentic: So many untouched hosts are saved too, each with the JPEG qualities of a forgery
            of it; one for every photograph that is a host by default.
        host_quality: JPEG quality of the host before it is forged, a number or a range; stored
            pixels by default.
        region_quality: JPEG quality of the photograph that a region is cut from, before it is cut;
            stored pixels by default. Removals cut nothing.
        quality: JPEG quality of the saved image, a number or a range.
        style: How regions are scaled, turned, exposed and softened, and how often each kind comes.
        max_side: Larger photographs are made smaller before all else; which wipes out old traces.
        min_side: Smaller photographs are rejected.
        num_workers: Processes beside this one; they do not change a byte.
    """
    settings = Settings(
        count, seed, name, split, host_quality, region_quality, quality, style, max_side
    )
    if num_workers < 0:
        raise UserError(f"--num_workers must be 0 or more, got {num_workers}")
    if authentic is not None and not 0 <= authentic <= count:
        raise UserError(f"--authentic must be 0 to --count, got {authentic}")
    if (max_side is not None and max_side < min_side) or min_side < 48:
        raise UserError("--min_side must be 48 or more, and not above --max_side")
    files = list_photographs(photos, out)
    outlines = find_outlines(regions, files) if regions else {}
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock").acquire(timeout=0):
            order = np.random.default_rng(seed).permutation(len(files))
            shuffled = tuple(files[index] for index in order)
            screening = Screening(shuffled, outlines, max_side, min_side)
            return _run_locked(settings, screening, out, authentic, num_workers)
    except Timeout as error:
        raise UserError(f"{out}: another job is writing there") from error


def _run_locked(
    settings: Settings, screening: Screening, out: Path, authentic: int | None, num_workers: int
) -> int:
    pool, errors = _screen(screening, max(settings.count, MIN_DONORS), num_workers)
    splices = settings.style.shares[KINDS.index("splice")] > 0
    if len(pool) < 1 + splices:
        write_jsonl(out / "errors.jsonl", [error.as_row() for error in errors])
        raise UserError(
            f"{len(pool)} of {len(screening.files)} photographs can be used, too few for a "
            f"forgery; see {out / 'errors.jsonl'}"
        )
    if authentic is None:
        authentic = min(settings.count, len(pool))
    tasks = tuple(plan(settings, pool, authentic))
    work = Forging(out, settings.name, settings.split)
    outcomes = list(parallel(work, tasks, num_workers, "forging"))
    errors += [outcome.error for outcome in outcomes if outcome.error is not None]
    notes = {
        "job": "data_prep forgeries",
        "settings": asdict(settings),
        "photographs": len(pool),
        "rejected": len(errors),
    }
    samples = [sample for outcome in outcomes for sample in outcome.samples]
    write_manifest(out / "manifest.jsonl", Header(notes=notes), samples)
    write_jsonl(out / "errors.jsonl", [error.as_row() for error in errors])
    kinds = Counter(sample.kind or "authentic" for sample in samples)
    sys.stdout.write(
        f"{out}/manifest.jsonl: {', '.join(f'{kinds[k]} {k}' for k in (*KINDS, 'authentic'))}, of "
        f"{len(pool)} photographs; {sum(o.made for o in outcomes)} forgeries made now; "
        f"{len(errors)} rejected{f' (see {out}/errors.jsonl)' if errors else ''}\n"
    )
    return EXIT_REJECTED if errors else EXIT_OK


def _screen(
    screening: Screening, enough: int, num_workers: int
) -> tuple[list[Photo], list[RejectedInput]]:
    """The first photographs that can be used, at most `enough`, and what was wrong with others."""
    pool: dict[str, Photo] = {}
    errors: list[RejectedInput] = []
    total = min(enough, len(screening.files))
    looks = parallel(screening, screening.files, num_workers, "looking", total)
    for photo, rejected in looks:
        errors += rejected
        if photo and photo.sha256 in pool:
            message = f"is the same file as {pool[photo.sha256].key}"
            errors.append(RejectedInput(photo.path, "duplicate", message))
        elif photo:
            pool[photo.sha256] = photo
        if len(pool) == enough:
            break
    return list(pool.values()), errors


class Outcome(NamedTuple):
    """What became of one task."""

    samples: list[Sample]
    made: bool  # False: an earlier run had made it
    error: RejectedInput | None = None


@dataclass(frozen=True)
class Forging:
    """The work on one task: a forgery is made, or found made."""

    out: Path
    dataset: str
    split: Split

    def __call__(self, task: Task) -> Outcome:
        """Bring one forgery up to date; a photograph that changed becomes an error."""
        try:
            made, now = bring_up_to_date(task, self.out)
        except RejectedInput as error:
            return Outcome([], made=False, error=error)
        return Outcome(self._samples(task, made), now)

    def _samples(self, task: Task, made: Provenance) -> list[Sample]:
        files = Files.of(task.id)
        host = task.host
        group = f"{Path(host.key).stem}-{host.sha256[:12]}"
        forged = Sample(
            id=task.id,
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
        )
        if not task.authentic:
            return [forged]
        untouched = Sample(
            id=f"{task.id}_authentic",
            dataset=self.dataset,
            split=self.split,
            group=group,
            image=files.authentic,
            size=made.size,
            label=0,
            boxes=(),
            image_sha256=made.authentic_sha256,
        )
        return [forged, untouched]
