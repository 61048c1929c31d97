"""`python -m data_prep forgeries`: any folder of photographs to forgeries with masks and boxes."""

import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from filelock import FileLock, Timeout

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, RejectedInput, UserError
from boxpromptiml.io.files import write_jsonl
from boxpromptiml.io.progress import parallel
from boxpromptiml.manifests.manifest import Header, write_manifest
from boxpromptiml.records import Sample, Split
from boxpromptiml.synth.forge import KINDS, ForgeryStyle
from data_prep.forgery.make import ForgeryFiles, ForgerySpec, Provenance, bring_up_to_date
from data_prep.forgery.outlines import find_outlines
from data_prep.forgery.photographs import Photo, PhotoInspector, list_photographs
from data_prep.forgery.plan import MIN_DONORS, ForgerySettings, Quality, plan

cv2.setNumThreads(0)  # OpenCV's thread pool hangs in a forked worker; the workers are the threads

GroupBy = Literal["photograph", "folder"]


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
    group_by: GroupBy = "photograph",
    num_workers: int = 0,
) -> int:
    """Forge photographs: splices, copy-moves and removals with exact masks and coarse boxes.

    Run it again to continue after a stop: forgeries made with the same settings are kept. Writes
    into `out`: images/, masks/ (PNG 0 | 255), provenance/ (one JSON per forgery: host, donor,
    parameters, JPEG qualities), manifest.jsonl and errors.jsonl. Donors come from the same folders:
    give every split folders of its own. Exit status 3 if a photograph or a forgery was rejected.

    Args:
        photos: Folders of photographs, with all folders below them.
        out: Folder to write.
        count: Number of forgeries; every photograph is host in turn.
        seed: The same seed gives the same bytes.
        split: Split of all images.
        name: Name of the dataset in the manifest; every id begins with it.
        regions: Objects to cut out or to remove: a COCO file (polygons, run lengths; `file_name` as
            below --photos), or a folder of masks named as the photographs. Where a photograph has
            none of suitable size, a region is found from superpixels.
        authentic: Number of untouched hosts to save too, compressed like their forgery. Default:
            one per host.
        host_quality: JPEG quality of the host before it is forged, a number or a range. Default:
            the stored pixels.
        region_quality: JPEG quality of the photograph that a region is cut from, before it is cut.
            Default: the stored pixels. Not used by removals.
        quality: JPEG quality of the saved image, a number or a range.
        style: How regions are scaled, rotated, exposed and softened, and how often each kind comes.
        max_side: Photographs with a longer side of more pixels are shrunk to it before anything
            else, which wipes out old traces.
        min_side: Photographs with a side of fewer pixels are rejected.
        group_by: Images of one group must stay in one split: those of one host photograph, or of
            one folder, where a folder holds photographs of one scene.
        num_workers: Processes beside this one; their number does not change a byte.

    Raises:
        UserError: If an option is out of range, too few photographs can be used, or another job
            writes into the folder.
    """
    settings = ForgerySettings(
        count, seed, name, split, host_quality, region_quality, quality, style, max_side
    )
    if num_workers < 0:
        raise UserError(f"--num_workers must be 0 or more, got {num_workers}")
    if authentic is not None and not 0 <= authentic <= count:
        raise UserError(f"--authentic must be 0 to --count, got {authentic}")
    if (max_side is not None and max_side < min_side) or min_side < 48:
        raise UserError("--min_side must be 48 or more, and not above --max_side")
    files = list_photographs(photos, out)
    inspector = PhotoInspector(find_outlines(regions, files) if regions else {}, max_side, min_side)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock").acquire(timeout=0):
            order = np.random.default_rng(seed).permutation(len(files))
            shuffled = [files[index] for index in order]
            pool, rejected = _inspect(inspector, shuffled, max(count, MIN_DONORS), num_workers)
            if len(pool) < 1 + (style.kind_fractions[KINDS.index("splice")] > 0):
                write_jsonl(out / "errors.jsonl", [error.as_row() for error in rejected])
                raise UserError(
                    f"{len(pool)} of {len(files)} photographs can be used, too few for a forgery; "
                    f"see {out / 'errors.jsonl'}"
                )
            specs = plan(settings, pool, min(count, len(pool)) if authentic is None else authentic)
            maker = ForgeryMaker(out, name, split, group_by)
            made = list(parallel(maker, specs, num_workers, "forging"))
            notes = {
                "settings": {**asdict(settings), "group_by": group_by},
                "photographs": len(pool),
            }
            return _finish(out, made, rejected, notes)
    except Timeout as error:
        raise UserError(f"{out}: another job is writing there") from error


def _inspect(
    inspector: PhotoInspector, files: list[tuple[str, Path]], enough: int, num_workers: int
) -> tuple[list[Photo], list[RejectedInput]]:
    """The first photographs that can be used, at most `enough`, and what was wrong with others."""
    pool: dict[str, Photo] = {}
    errors: list[RejectedInput] = []
    total = min(enough, len(files))
    for photo, rejected in parallel(inspector, files, num_workers, "inspecting", total):
        errors += rejected
        if photo and photo.sha256 in pool:
            message = f"is the same file as {pool[photo.sha256].key}"
            errors.append(RejectedInput(photo.path, "duplicate", message))
        elif photo:
            pool[photo.sha256] = photo
        if len(pool) == enough:
            break
    return list(pool.values()), errors


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
    """Makes one forgery after another, in any process."""

    out: Path
    dataset: str
    split: Split
    group_by: GroupBy

    def __call__(self, spec: ForgerySpec) -> ForgeryResult:
        """Make a forgery, unless it is there."""
        try:
            made, now = bring_up_to_date(spec, self.out)
        except RejectedInput as error:
            return ForgeryResult([], made=False, error=error)
        return ForgeryResult(self._samples(spec, made), now)

    def _samples(self, spec: ForgerySpec, made: Provenance) -> list[Sample]:
        files = ForgeryFiles.of(spec.id)
        host = spec.host
        by_photo = f"{Path(host.key).stem}-{host.sha256[:12]}"
        group = by_photo if self.group_by == "photograph" else Path(host.key).parent.as_posix()
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
        )
        return [forged, untouched]


def _finish(
    out: Path, results: list[ForgeryResult], rejected: list[RejectedInput], notes: dict[str, object]
) -> int:
    """Write manifest and errors, say what was made, and return the exit status."""
    errors = rejected + [result.error for result in results if result.error is not None]
    notes = {"job": "data_prep forgeries", **notes, "rejected": len(errors)}
    samples = [sample for result in results for sample in result.samples]
    write_manifest(out / "manifest.jsonl", Header(notes=notes), samples)
    write_jsonl(out / "errors.jsonl", [error.as_row() for error in errors])
    kinds = Counter(sample.kind or "authentic" for sample in samples)
    sys.stdout.write(
        f"{out}/manifest.jsonl: {', '.join(f'{kinds[k]} {k}' for k in (*KINDS, 'authentic'))}, of "
        f"{notes['photographs']} photographs; {sum(r.made for r in results)} forgeries made now; "
        f"{len(errors)} rejected{f' (see {out}/errors.jsonl)' if errors else ''}\n"
    )
    return EXIT_REJECTED if errors else EXIT_OK
