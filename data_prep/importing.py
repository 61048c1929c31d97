"""`python -m data_prep import`: a raw dataset, as downloaded, to a manifest."""

import sys
from pathlib import Path
from typing import Literal

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, UserError
from boxpromptiml.manifest import Header, relative_root, write_manifest
from boxpromptiml.provenance import write_jsonl
from boxpromptiml.records import Split
from data_prep.importers import Imported
from data_prep.importers.folder import import_folder

Dataset = Literal["folder"]


def import_dataset(
    dataset: Dataset,
    source: Path,
    out: Path,
    split: Split = "train",
    name: str | None = None,
    mask_threshold: int | None = None,
) -> int:
    """Write the manifest of a raw dataset; pixels stay where they are.

    What cannot be used is listed with path and reason in a file beside the manifest
    (train.jsonl: train.errors.jsonl), and the exit status is 3.

    Args:
        dataset: Layout of the source. folder: tampered/, authentic/, masks/ and boxes.json (COCO).
        source: The dataset's folder.
        out: Manifest to write (.jsonl).
        split: The split that all its images get.
        name: Name of the dataset in the manifest; the folder's name by default.
        mask_threshold: Mask values above this are manipulated; only needed for masks that are not
            plain {0,1} or {0,255}, such as JPEG masks.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    imported = import_folder(source, name or source.resolve().name, split, mask_threshold)
    return finish_import(imported, source, out, dataset)


def finish_import(imported: Imported, source: Path, out: Path, dataset: str) -> int:
    """Write manifest and errors, say the counts, return the exit status."""
    header = Header(
        image_root=relative_root(out, source),
        notes={"dataset": dataset, "rejected": len(imported.rejected)},
    )
    write_manifest(out, header, imported.samples)
    errors = out.with_name(f"{out.stem}.errors.jsonl")
    if imported.rejected:
        write_jsonl(errors, [error.as_row() for error in imported.rejected])
    else:
        errors.unlink(missing_ok=True)
    manipulated = sum(sample.label == 1 for sample in imported.samples)
    boxes = sum(len(sample.boxes or ()) for sample in imported.samples)
    sys.stdout.write(
        f"{out}: {len(imported.samples)} images, {manipulated} manipulated, {boxes} boxes, "
        f"{len(imported.rejected)} rejected{f' (see {errors})' if imported.rejected else ''}\n"
    )
    return EXIT_REJECTED if imported.rejected else EXIT_OK
