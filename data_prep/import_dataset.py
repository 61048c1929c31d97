"""`python -m data_prep import`: a raw dataset, as downloaded, to a manifest."""

import logging
import os
import sys
from pathlib import Path
from typing import Literal

from boxpromptiml.errors import UserError
from boxpromptiml.io.options import needs
from boxpromptiml.manifests.manifest import Header, relative_root
from boxpromptiml.records import Split
from data_prep.annotations.fitting import View
from data_prep.derive import errors_path, write_rejections, write_with_rejections
from data_prep.importers import Imported, NothingImported
from data_prep.importers.archive import open_source
from data_prep.importers.assemble import assemble
from data_prep.importers.checking import ImportOptions
from data_prep.importers.datasets.autosplice import AUTOSPLICE
from data_prep.importers.datasets.casia import CASIA_V1, CASIA_V2
from data_prep.importers.datasets.cocoglide import COCOGLIDE
from data_prep.importers.datasets.columbia import COLUMBIA
from data_prep.importers.datasets.coverage import COVERAGE
from data_prep.importers.datasets.defacto import DEFACTO
from data_prep.importers.datasets.dso1 import DSO1
from data_prep.importers.datasets.imd2020 import IMD2020
from data_prep.importers.datasets.in_the_wild import IN_THE_WILD
from data_prep.importers.datasets.korus import KORUS
from data_prep.importers.datasets.misd import MISD
from data_prep.importers.datasets.nist16 import NIST16
from data_prep.importers.datasets.tampcoco import TAMPCOCO
from data_prep.importers.folder import FolderOptions, import_folder
from data_prep.importers.layout import DatasetLayout
from data_prep.importers.pairs import pairs

_logger = logging.getLogger(__name__)

PUBLIC: dict[str, DatasetLayout] = {
    dataset.name: dataset
    for dataset in (
        AUTOSPLICE,
        CASIA_V1,
        CASIA_V2,
        COCOGLIDE,
        COLUMBIA,
        COVERAGE,
        DEFACTO,
        DSO1,
        IMD2020,
        IN_THE_WILD,
        KORUS,
        MISD,
        NIST16,
        TAMPCOCO,
    )
}
DatasetName = Literal[
    "autosplice",
    "casia_v1",
    "casia_v2",
    "cocoglide",
    "columbia",
    "coverage",
    "defacto",
    "dso1",
    "folder",
    "imd2020",
    "in_the_wild",
    "korus",
    "misd",
    "nist16",
    "pairs",
    "tampcoco",
]


@needs("view", "dataset", "folder")
def import_dataset(
    dataset: DatasetName,
    source: Path,
    out: Path,
    split: Split | None = None,
    name: str | None = None,
    mask_threshold: int | None = None,
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
        dataset: Layout of the source. folder: tampered/, authentic/, masks/ and boxes.json (COCO);
            pairs: the formats of IMDLBenCo, ForensicHub, WSCL and SCAF; else the public dataset of
            that name.
        source: The dataset's folder or zip archive; for pairs also a list (.json).
        out: Manifest to write (.jsonl).
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
    if dataset == "folder":
        if not source.is_dir():
            raise UserError(f"{source}: no such folder")
        options = FolderOptions(
            name or source.resolve().name,
            split or "train",
            mask_threshold,
            verify,
            view,
            follow_links,
        )
        imported = import_folder(source, options)
        return finish_import(imported, imported.root or source, out, dataset)
    description = pairs(source) if dataset == "pairs" else PUBLIC[dataset]
    beside = out.parent.resolve()
    masks, files = beside / f"{out.stem}.masks", beside / f"{out.stem}.files"
    if description.convert and mask_threshold is not None:
        raise UserError(f"{dataset}: its masks are {description.polarity}; leave --mask_threshold")
    opened = open_source(source, files, skipped=(masks, files), follow_links=follow_links)
    writes_masks = description.convert is not None or description.unites
    root = Path(os.path.commonpath([opened.root, beside])) if writes_masks else opened.root
    default = source.resolve().stem if dataset == "pairs" else dataset
    import_options = ImportOptions(name or default, split, mask_threshold, verify, root, masks)
    try:
        imported = assemble(description, opened, import_options)
    except NothingImported as error:
        write_rejections(errors_path(out), error.rejected)
        if not error.rejected:
            raise
        why = f"{len(error.rejected)} rejected, the first: {error.rejected[0]}"
        raise UserError(f"{error}; {why} (all in {errors_path(out)})") from error
    return finish_import(imported, root, out, dataset)


def finish_import(imported: Imported, root: Path, out: Path, dataset: str) -> int:
    """Write manifest and errors, print the counts, return the exit status."""
    header = Header(
        image_root=relative_root(out, root),
        notes={"dataset": dataset, **imported.notes, "rejected": len(imported.rejected)},
    )
    status = write_with_rejections(out, header, imported.samples, imported.rejected)
    manipulated = sum(sample.label == 1 for sample in imported.samples)
    masks = sum(sample.mask is not None for sample in imported.samples)
    warnings = list(imported.notes.get("warnings", ()))
    if manipulated and not masks:
        warnings.append("no manipulated image has a mask: are they in a folder of another name?")
    for warning in warnings:
        _logger.warning("%s: %s", dataset, warning)
    boxes = sum(len(sample.boxes or ()) for sample in imported.samples)
    see = f" (see {errors_path(out)})" if imported.rejected else ""
    sys.stdout.write(
        f"{out}: {len(imported.samples)} images, {manipulated} manipulated, {masks} masks, "
        f"{boxes} boxes, {len(imported.rejected)} rejected{see}\n"
    )
    return status
