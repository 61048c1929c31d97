"""`python -m data_prep import`: a raw dataset, as downloaded, to a manifest."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from boxpromptiml.cli.messages import suggestion
from boxpromptiml.errors import UserError
from boxpromptiml.io.options import needs
from boxpromptiml.io.outputs import files_of_import
from boxpromptiml.io.trust import is_import_path, trusted_object
from boxpromptiml.manifests.manifest import Header, relative_root
from boxpromptiml.records import Split
from data_prep.annotations.fitting import View
from data_prep.derive import (
    errors_path,
    require_outputs,
    write_rejections,
    write_with_rejections,
)
from data_prep.importers import Imported, NothingImported
from data_prep.importers.archive import RawArchive, open_source
from data_prep.importers.assemble import assemble
from data_prep.importers.checking import ImportOptions
from data_prep.importers.datasets import PUBLIC
from data_prep.importers.folder import Patterns, folder_layout, with_boxes
from data_prep.importers.layout import DatasetLayout
from data_prep.importers.pairs import LISTS, pairs

MaskThreshold = Annotated[int, Ge(0), Le(254)]  # grey levels

_logger = logging.getLogger(__name__)


@needs("images masks authentic boxes view", "dataset", "folder")
def import_dataset(
    dataset: str,
    source: Path,
    out: Path,
    images: str | None = None,
    masks: str | None = None,
    authentic: str | None = None,
    boxes: Path | None = None,
    split: Split | None = None,
    name: str | None = None,
    mask_threshold: MaskThreshold | None = None,
    verify: bool = False,
    view: View | None = None,
    follow_links: bool = False,
) -> int:
    """Write the manifest of a raw dataset; images are not moved.

    What cannot be used is listed with path and reason in a file beside the manifest (train.jsonl:
    train.errors.jsonl), and the exit status is 3. Masks that need conversion are rewritten into
    train.masks/, members of an archive are written into train.files/. The manifest's first line
    says how masks are read, what was corrected, and which counts are unexpected.

    Args:
        dataset: folder: your own images, see below; pairs: the formats of IMDLBenCo, ForensicHub,
            WSCL and SCAF; or a public dataset: autosplice, casia_v1, casia_v2, cocoglide, columbia,
            coverage, defacto, dso1, imd2020, in_the_wild, korus, misd, nist16, tampcoco, or your
            own `DatasetLayout`, such as mylab.LAYOUT (with --trust mylab).
        source: The dataset's folder or zip archive; for pairs also a list (.json); for folder also
            a table of paths (.csv: image, and optionally mask, label, split, group, kind).
        out: Manifest to write (.jsonl).
        images: Of a folder: where images lie below it, such as photos/{id}.jpg, where `*` is
            anything within a name. An image is manipulated if its mask marks a pixel or it has a
            box; without both its label is unknown. Default: the layout tampered/, authentic/,
            masks/ and boxes.json (COCO), else all photographs, with unknown labels.
        masks: Where the masks of these images lie, such as truth/{id}_gt.png.
        authentic: Where authentic images lie, such as real/{id}.jpg.
        boxes: Boxes around what is manipulated: COCO (.json) or a table (.csv: image, x0, y0, x1,
            y1, in pixels; also xmin, ymin, xmax, ymax).
        split: Split of all images; by default the dataset's own, else train.
        name: Name of the dataset in the manifest; for folder and pairs the source's name by
            default.
        mask_threshold: Mask values above this are manipulated; by default the dataset's own.
        verify: Decode every image and mask; by default only headers are read.
        view: For images with an EXIF orientation: whether the boxes of a folder were drawn on the
            `upright` picture (as viewers and most tools show it) or on the `stored` pixels.
        follow_links: Follow symbolic links, as in the cache of the Hugging Face Hub; the manifest
            names the files that they point to. By default links are rejected.

    Raises:
        UserError: If the source does not exist, holds nothing of the dataset, or an option does not
            apply.
    """
    require_outputs(out)
    files_of_import(out, errors_path(out)).require(out.parent)
    default = dataset
    if dataset in ("folder", "pairs"):
        resolved = source.resolve()
        default = resolved.name if resolved.is_dir() else resolved.stem
    description = _layout(dataset, source, name or default, Patterns(images, masks, authentic))
    default = description.name if is_import_path(dataset) else default
    beside = out.parent.resolve()
    new_masks, files = beside / f"{out.stem}.masks", beside / f"{out.stem}.files"
    if description.convert and mask_threshold is not None:
        raise UserError(f"{dataset}: its masks are {description.polarity}; leave --mask_threshold")
    opened = open_source(source, files, skipped=(new_masks, files), follow_links=follow_links)
    writes_masks = description.convert is not None or description.unites
    root = Path(os.path.commonpath([opened.root, beside])) if writes_masks else opened.root
    if writes_masks or isinstance(opened, RawArchive):
        files_of_import(out, errors_path(out)).mark(out.parent)
    import_options = ImportOptions(name or default, split, mask_threshold, verify, root, new_masks)
    try:
        imported = assemble(description, opened, import_options)
    except NothingImported as error:
        write_rejections(errors_path(out), error.rejected)
        if not error.rejected:
            raise
        why = f"{len(error.rejected)} rejected, the first: {error.rejected[0]}"
        raise UserError(f"{error}; {why} (all in {errors_path(out)})") from error
    if dataset == "folder":
        imported = with_boxes(imported, opened, boxes, root, view)
    return _finish(imported, root, out, dataset, masks_expected=boxes is None)


def _layout(dataset: str, source: Path, name: str, patterns: Patterns) -> DatasetLayout:
    """The layout of a dataset by its name."""
    if dataset == "pairs" or (dataset == "folder" and source.suffix.lower() in LISTS):
        if patterns:
            raise UserError(f"{source}: lists its images; leave --images, --masks, --authentic")
        return pairs(source)
    if dataset == "folder":
        return folder_layout(name, patterns)
    if is_import_path(dataset):
        layout = trusted_object(dataset, "--dataset")
        if not isinstance(layout, DatasetLayout):
            raise UserError(f"--dataset {dataset}: is not a DatasetLayout")
        return layout
    if dataset not in PUBLIC:
        near = suggestion(dataset, PUBLIC)
        known = ", ".join(["folder", "pairs", *PUBLIC])
        raise UserError(f"--dataset {dataset}: is not known{near or f'; there are {known}'}")
    return PUBLIC[dataset]


def _finish(imported: Imported, root: Path, out: Path, dataset: str, masks_expected: bool) -> int:
    """Write manifest and errors, print the counts, return the exit status."""
    header = Header(
        image_root=relative_root(out, root),
        notes={"dataset": dataset, **imported.notes, "rejected": len(imported.rejected)},
    )
    status = write_with_rejections(out, header, imported.samples, imported.rejected)
    manipulated = sum(sample.label == 1 for sample in imported.samples)
    masks = sum(sample.mask is not None for sample in imported.samples)
    warnings = list(imported.notes.get("warnings", ()))
    if manipulated and not masks and masks_expected:
        warnings.append("no manipulated image has a mask: are they in a folder of another name?")
    if unknown := sum(sample.label is None for sample in imported.samples):
        warnings.append(
            f"{unknown} images are of unknown label: they can be localized, and annotated with "
            "`boxpromptiml annotate`, but not trained on"
        )
    for warning in warnings:
        _logger.warning("%s: %s", dataset, warning)
    boxes = sum(len(sample.boxes or ()) for sample in imported.samples)
    see = f" (see {errors_path(out)})" if imported.rejected else ""
    sys.stdout.write(
        f"{out}: {len(imported.samples)} images, {manipulated} manipulated, {masks} masks, "
        f"{boxes} boxes, {len(imported.rejected)} rejected{see}\n"
    )
    return status
