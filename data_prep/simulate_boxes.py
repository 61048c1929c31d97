"""`python -m data_prep boxes`: the coarse boxes that a person would draw, from masks."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.io.files import generator
from boxpromptiml.io.options import Seed
from boxpromptiml.manifests.manifest import Manifest, read_manifest
from boxpromptiml.records import Sample
from boxpromptiml.synth.boxes import ANNOTATORS, Annotator, AnnotatorName, draw
from data_prep.derive import derive, require_outputs


def boxes(
    manifest: Path,
    out: Path,
    preset: AnnotatorName = "7-second",
    looseness: float | None = None,
    tightness: float | None = None,
    merge: float | None = None,
    overlook_area: float | None = None,
    overlook_chance: float | None = None,
    per_image: bool = False,
    seed: Seed = 0,
) -> int:
    """Draw coarse boxes around the ground truth of a manifest's manipulated images.

    Authentic images get no boxes. Images of unknown label, and manipulated ones without a mask,
    stay as they are. A box depends on the mask, the settings, the seed and the sample's id only.
    Images whose mask cannot be used are left out and listed in <out stem>.errors.jsonl; the exit
    status is then 3.

    Args:
        manifest: Images and masks.
        out: Manifest to write (.jsonl).
        preset: tight (0 to 2 % loose), 7-second (2 % tight to 15 % loose, specks missed), sloppy
            (10 % tight to 40 % loose, neighbours merged, half of the regions below 1 % missed).
            7-second is fitted to the simulated boxes of our synthetic forgeries, not to people's.
            Each of the following options replaces one of its settings.
        looseness: How far a side may lie outside its region, as a fraction of the region's extent.
        tightness: How far a side may cut into its region, as a fraction of the region's extent.
        merge: Regions share a box up to this gap, as a fraction of the image's longer side.
        overlook_area: Regions below this fraction of the image may be missed, never the largest.
        overlook_chance: Probability of missing such a region.
        per_image: Draw one box around all regions.
        seed: Another seed gives another annotator with the same habits.

    Raises:
        UserError: If an option is out of range or the manifest cannot be read.
    """
    require_outputs(out)
    wanted = {
        "looseness": looseness,
        "tightness": tightness,
        "merge": merge,
        "overlook_area": overlook_area,
        "overlook_chance": overlook_chance,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    annotator = replace(ANNOTATORS[preset], per_image=per_image, **given)
    source = read_manifest(manifest)
    samples: list[Sample] = []
    rejected: list[RejectedInput] = []
    for sample in source.samples:
        try:
            samples.append(_annotated(source, sample, annotator, seed))
        except RejectedInput as error:
            rejected.append(error)
    notes = {"boxes": {"origin": "masks", "preset": preset, "seed": seed, **asdict(annotator)}}
    status = derive(source, out, samples, rejected, notes)
    drawn = [
        len(sample.boxes) for sample in samples if sample.box_origin == "mask" and sample.boxes
    ]
    sys.stdout.write(
        f"{out}: {len(samples)} images, {sum(drawn)} boxes in {len(drawn)} of them, "
        f"{sum(sample.boxes is None for sample in samples)} not annotated, "
        f"{len(rejected)} rejected\n"
    )
    return status


def _annotated(manifest: Manifest, sample: Sample, annotator: Annotator, seed: int) -> Sample:
    """A sample with new boxes; it keeps its pseudo-mask only if they are the old ones.

    Raises:
        RejectedInput: If the mask cannot be read, is empty, or is not of the image's size.
    """
    if sample.label == 0:
        return replace(sample, boxes=(), box_origin=None)
    path = manifest.mask_path(sample)
    if sample.label is None or path is None:
        return sample
    mask = images.read_mask(path, sample.mask_threshold)
    if mask.shape != sample.size:
        height, width = mask.shape
        message = f"is {width} x {height}, the image {sample.size[1]} x {sample.size[0]}"
        raise RejectedInput(path, "size_mismatch", message)
    if not mask.any():
        raise RejectedInput(path, "empty_mask", "is empty, but the image is labelled manipulated")
    drawn = draw(mask, annotator, generator(seed, sample.id))
    pseudo_mask = sample.pseudo_mask if drawn == sample.boxes else None
    return replace(sample, boxes=drawn, box_origin="mask", pseudo_mask=pseudo_mask)
