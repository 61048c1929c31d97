"""`python -m data_prep cam-boxes`: boxes from a trained network for images with a label only."""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io.files import sha256_file
from boxpromptiml.manifests.manifest import Manifest, read_manifest
from boxpromptiml.manifests.sources import Source, stored_image
from boxpromptiml.manifests.splits import nested_share
from boxpromptiml.records import Box, ImageArray, Sample
from boxpromptiml.segmenters.config import SegmenterConfig
from boxpromptiml.teachers.cam import MapBoxes, boxes_from_map
from data_prep.derive import rewrite


def cam_boxes(
    manifest: Path,
    checkpoint: Path,
    out: Path,
    boxes: MapBoxes = MapBoxes(),  # noqa: B008 - frozen
    box_share: float = 1.0,
    seed: int = 0,
    batch_size: int = 8,
    device: str = "cpu",
    segmenter: SegmenterConfig | None = None,
) -> int:
    """Box what a trained network sees in manipulated images that nobody has boxed.

    Only images with label 1 and without boxes are opened, and no mask is: an image label stays an
    image label. Since the label is known, a map counts relative to its maximum: the network's doubt
    whether the image is manipulated at all is no reason to box less. Their boxes get the origin
    `cam`; one in which the network sees nothing stays without. All other rows stay as they are.
    Images that cannot be read are listed in <out stem>.errors.jsonl, and the exit status is 3. Make
    pseudo-masks of the result as of any boxes.

    Args:
        manifest: The images.
        checkpoint: A checkpoint of `boxpromptiml fit`. A WCBnet knows image labels only; boxes of a
            student carry what the student was trained on (its kind is in the header's notes).
        out: Manifest to write (.jsonl).
        boxes: How a map becomes boxes.
        box_share: Share of the boxed manipulated images that keep their boxes; the others count as
            not boxed, at 0 all of them. A larger share with the same seed contains a smaller one.
        seed: Of the choice of these images; it depends on their ids, not on their order.
        batch_size: Images through the network at a time.
        device: cpu or cuda.
        segmenter: Refine the maps by these regions instead of the checkpoint's own choice.
    """
    if not 0 <= box_share <= 1:
        raise UserError(f"--box_share must be in [0, 1], got {box_share}")
    source = read_manifest(manifest)
    localizer = Localizer.load(checkpoint, device, segmenter)
    unboxed = _unboxed(source.samples, box_share, seed)
    answers = _localized(source, unboxed, localizer, boxes, batch_size)
    rejected = [answer for answer in answers.values() if isinstance(answer, RejectedInput)]
    samples = [
        _answered(sample, answers.get(sample.id))
        for sample in source.samples
        if not isinstance(answers.get(sample.id), RejectedInput)
    ]
    notes = {
        "checkpoint": checkpoint.name,
        "network": localizer.card.kind,
        "checkpoint_sha256": sha256_file(checkpoint),
        "segmenter": localizer.segmenter.signature if localizer.segmenter else None,
        "boxes": boxes.signature,
        "box_share": box_share,
        "seed": seed,
    }
    status = rewrite(source, out, samples, rejected, {"cam_boxes": notes})
    found = [answer for answer in answers.values() if isinstance(answer, tuple)]
    sys.stdout.write(
        f"{out}: {len(samples)} images, {sum(map(bool, found))} boxed by the network with "
        f"{sum(map(len, found))} boxes, {found.count(())} in which it sees nothing, "
        f"{len(rejected)} rejected\n"
    )
    return status


def _unboxed(samples: Iterable[Sample], share: float, seed: int) -> list[Sample]:
    """Manipulated samples without boxes, and those boxed ones that do not keep theirs."""
    manipulated = [sample for sample in samples if sample.label == 1]
    boxed = [sample.id for sample in manipulated if sample.boxes is not None]
    keeping = nested_share(boxed, share, seed)
    return [sample for sample in manipulated if sample.id not in keeping]


def _localized(
    manifest: Manifest,
    samples: Sequence[Sample],
    localizer: Localizer,
    settings: MapBoxes,
    batch_size: int,
) -> dict[str, tuple[Box, ...] | RejectedInput]:
    """Boxes of every sample, or why it has none, by id and in the order of the samples."""
    answers: dict[str, tuple[Box, ...] | RejectedInput] = {sample.id: () for sample in samples}
    console = Console(stderr=True)
    by_size = sorted(samples, key=lambda sample: sample.size)  # one size goes through together
    starts = range(0, len(by_size), max(batch_size, 1))
    for start in track(starts, "boxing", console=console):
        images: dict[str, ImageArray] = {}
        for sample in by_size[start : start + starts.step]:
            try:
                images[sample.id] = _image(manifest, sample)
            except RejectedInput as error:
                console.print(f"rejected {error}", markup=False, soft_wrap=True)
                answers[sample.id] = error
        for key, located in zip(images, localizer.localize(list(images.values())), strict=True):
            relative = located.prob / max(float(located.prob.max()), 1e-6)
            answers[key] = tuple(one.box for one in boxes_from_map(relative, settings))
    return answers


def _image(manifest: Manifest, sample: Sample) -> ImageArray:
    try:
        return stored_image(Source(manifest, sample))
    except RejectedInput:
        raise
    except UserError as error:  # its path leads out of the root
        raise RejectedInput(sample.image, "bad_path", str(error)) from error


def _answered(sample: Sample, boxes: tuple[Box, ...] | RejectedInput | None) -> Sample:
    """The sample with the network's boxes; a pseudo-mask of other boxes is not its own."""
    if not isinstance(boxes, tuple):
        return sample
    blank = dataclasses.replace(sample, boxes=None, box_origin=None, pseudo_mask=None)
    return dataclasses.replace(blank, boxes=boxes, box_origin="cam") if boxes else blank
