"""`python -m data_prep forgeries`: any folder of photographs to forgeries with masks and boxes."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, RejectedInput, UserError
from boxpromptiml.io.files import remove_temporaries, write_jsonl
from boxpromptiml.io.images import write_jpeg
from boxpromptiml.io.options import ProcessCount
from boxpromptiml.io.outputs import FORGERIES
from boxpromptiml.io.progress import parallel
from boxpromptiml.manifests.manifest import Header, write_manifest
from boxpromptiml.manifests.sources import Source
from boxpromptiml.records import Split
from boxpromptiml.synth.forge import DEFAULT_STYLE, KINDS, ForgeryStyle
from boxpromptiml.synth.variety import DEFAULT_VARIETY, Variety
from data_prep.contact_sheet import MAX_SHOWN, contact_sheet, forgery_cell
from data_prep.forgery.manifest_photographs import Candidate, CandidateInspector, list_manifests
from data_prep.forgery.outlines import find_outlines
from data_prep.forgery.output import ForgeryMaker, ForgeryResult, GroupBy, Spec
from data_prep.forgery.photographs import Photo, list_photographs
from data_prep.forgery.plan import (
    DEFAULT_QUALITY,
    MIN_DONORS,
    ForgerySettings,
    QualityRange,
    VariedSettings,
    plan,
    plan_varied,
)

cv2.setNumThreads(0)  # OpenCV's thread pool hangs in a forked worker; the workers are the threads

Recipe = Literal["plain", "varied"]


def forgeries(
    out: Path,
    count: int,
    images: list[Path] | None = None,
    manifest: list[Path] | None = None,
    recipe: Recipe = "plain",
    seed: int = 0,
    split: Split = "train",
    name: str = "forgeries",
    regions: Path | None = None,
    authentic: int | None = None,
    host_quality: QualityRange | None = None,
    region_quality: QualityRange | None = None,
    quality: QualityRange = DEFAULT_QUALITY,
    style: ForgeryStyle = DEFAULT_STYLE,
    objects: list[Path] | None = None,
    varied: Variety = DEFAULT_VARIETY,
    max_side: int | None = None,
    min_side: int = 64,
    group_by: GroupBy = "photograph",
    show: int = 0,
    num_workers: ProcessCount = 0,
) -> int:
    """Forge photographs: splices, copy-moves and removals with exact masks and coarse boxes.

    Run it again to continue after a stop: forgeries made with the same settings are kept. Writes
    into `out`: images/, masks/ (PNG 0 | 255), provenance/ (one JSON per forgery: host, donors,
    parameters, JPEG qualities), manifest.jsonl and errors.jsonl. Donors come from the same
    photographs: give every split its own. Where these come from manifests, `made_from` of a forgery
    lists the ids of all that it is made from. Exit status 3 if a photograph or a forgery was
    rejected.

    Args:
        out: Folder to write.
        count: Number of forgeries; every photograph is host in turn.
        images: Folders of photographs, with all folders below them.
        manifest: Manifests whose authentic images are photographs to forge too.
        recipe: plain: --style and the qualities below, everything at the size of its photograph.
            varied: --varied, with --objects: JPEG histories of differing quality and grid, regions
            scaled, matched and treated at their borders, copies near and far, removals by four
            methods, and edits of the whole image, which its authentic sibling shares.
        seed: The same seed gives the same bytes.
        split: Split of all images.
        name: Name of the dataset in the manifest; every id begins with it.
        regions: Objects to cut out or to remove: a COCO file (polygons, run lengths; `file_name` as
            below --images), or a folder of masks named as the photographs. Where a photograph has
            none of suitable size, a region is found from superpixels.
        authentic: Number of untouched hosts to save too, compressed like their forgery. Default:
            one per host.
        host_quality: JPEG quality of the host before it is forged, a number or a range. Default:
            the stored pixels.
        region_quality: JPEG quality of the photograph that a region is cut from, before it is cut.
            Default: the stored pixels. Not used by removals.
        quality: JPEG quality of the saved image, a number or a range.
        style: How regions are scaled, rotated, exposed and softened, and how often each kind comes.
        objects: Manifests of forged images with masks (varied recipe): their objects are cut out of
            them for splices, and lend their outlines to copy-moves and removals.
        varied: The ranges of the varied recipe.
        max_side: Photographs with a longer side of more pixels are shrunk to it before anything
            else, which wipes out old traces (plain recipe; see --varied.sides).
        min_side: Photographs with a side of fewer pixels are rejected.
        group_by: Images of one group must stay in one split: those of one host photograph, or of
            one folder, where a folder holds photographs of one scene. Hosts of a manifest keep
            their group.
        show: Number of forgeries to draw in contact_sheet.jpg, with masks and boxes.
        num_workers: Processes beside this one; their number does not change a byte.

    Raises:
        UserError: If an option is out of range or of the other recipe, too few photographs can be
            used, or another job writes into the folder.
    """
    settings: ForgerySettings | VariedSettings = ForgerySettings(
        count, seed, name, split, host_quality, region_quality, quality, style, max_side
    )
    of_plain = (regions, host_quality, region_quality, quality, style, max_side)
    if recipe == "varied":
        _refuse_other(recipe, of_plain != (None, None, None, DEFAULT_QUALITY, DEFAULT_STYLE, None))
        settings = VariedSettings(count, seed, name, split, varied)
    else:
        _refuse_other(recipe, bool(objects) or varied != DEFAULT_VARIETY)
    if not 0 <= show <= MAX_SHOWN:
        raise UserError(f"--show must be 0 to {MAX_SHOWN}, got {show}")
    if authentic is not None and not 0 <= authentic <= count:
        raise UserError(f"--authentic must be 0 to --count, got {authentic}")
    if (max_side is not None and max_side < min_side) or min_side < 48:
        raise UserError("--min_side must be 48 or more, and not above --max_side")
    if not (images or manifest):
        raise UserError("name photographs to forge: --images FOLDER, --manifest FILE, or both")
    FORGERIES.require(out)
    files = list_photographs(images or [], out)
    outlines = find_outlines(regions, files) if regions else {}
    inspector = CandidateInspector(outlines, max_side, min_side)
    listed = list_manifests("--manifest", manifest or [], label=0)
    masked = list_manifests("--objects", objects or [], label=1)
    with FORGERIES.hold(out):
        remove_temporaries(out)  # of a run that was killed
        pool, rejected = _inspect(inspector, [*files, *listed], count, seed, num_workers)
        parts, also_rejected = _inspect(inspector, masked, count, seed, num_workers)
        rejected += also_rejected
        splices = varied.kinds[0] if recipe == "varied" else style.kind_fractions[0]
        if len(pool) < 1 + (splices > 0):
            write_jsonl(out / "errors.jsonl", [error.as_row() for error in rejected])
            raise UserError(
                f"{len(pool)} of {len(files) + len(listed)} photographs can be used, too few "
                f"for a forgery; see {out / 'errors.jsonl'}"
            )
        untouched = min(count, len(pool)) if authentic is None else authentic
        specs: list[Spec]
        if isinstance(settings, VariedSettings):
            with_parts = [image for image in parts if image.outlines]
            specs = [*plan_varied(settings, pool, with_parts, untouched)]
        else:
            specs = [*plan(settings, pool, untouched)]
        maker = ForgeryMaker(out, name, split, group_by)
        made = list(parallel(maker, specs, num_workers, "forging"))
        notes = {"settings": {**asdict(settings), "group_by": group_by}, "photographs": len(pool)}
        return _finish(out, made, rejected, notes, show)


def _refuse_other(recipe: Recipe, given: bool) -> None:
    """Refuse options that the recipe would ignore.

    Raises:
        UserError: If one was given.
    """
    if given:
        has = (
            "--varied and --objects"
            if recipe == "plain"
            else ("--regions, --host_quality, --region_quality, --quality, --style and --max_side")
        )
        raise UserError(f"the {recipe} recipe has no {has}; see --recipe")


def _inspect(
    inspector: CandidateInspector,
    candidates: Sequence[Candidate],
    count: int,
    seed: int,
    num_workers: int,
) -> tuple[list[Photo], list[RejectedInput]]:
    """The photographs that `count` forgeries use, shuffled, and what was wrong with others."""
    order = np.random.default_rng(seed).permutation(len(candidates))
    files, enough = [candidates[index] for index in order], max(count, MIN_DONORS)
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


def _finish(
    out: Path,
    results: list[ForgeryResult],
    rejected: list[RejectedInput],
    notes: dict[str, object],
    show: int,
) -> int:
    """Write manifest, errors and contact sheet, say what was made, and return the exit status."""
    errors = rejected + [result.error for result in results if result.error is not None]
    notes = {"job": "data_prep forgeries", **notes, "rejected": len(errors)}
    samples = [sample for result in results for sample in result.samples]
    manifest = write_manifest(out / "manifest.jsonl", Header(notes=notes), samples)
    forged = [Source(manifest, sample) for sample in samples if sample.label][:show]
    if forged:
        write_jpeg(out / "contact_sheet.jpg", contact_sheet([*map(forgery_cell, forged)]), 90)
    write_jsonl(out / "errors.jsonl", [error.as_row() for error in errors])
    kinds = Counter(sample.kind or "authentic" for sample in samples)
    sys.stdout.write(
        f"{out}/manifest.jsonl: {', '.join(f'{kinds[k]} {k}' for k in (*KINDS, 'authentic'))}, of "
        f"{notes['photographs']} photographs; {sum(r.made for r in results)} forgeries made now; "
        f"{len(errors)} rejected{f' (see {out}/errors.jsonl)' if errors else ''}\n"
    )
    return EXIT_REJECTED if errors else EXIT_OK
