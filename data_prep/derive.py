"""Writing a manifest together with the list of what was rejected."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, RejectedInput
from boxpromptiml.io.files import write_jsonl
from boxpromptiml.io.outputs import MANIFEST, REJECTIONS
from boxpromptiml.manifests.manifest import Header, Manifest, relative_root, write_manifest
from boxpromptiml.records import Sample


def require_outputs(out: Path) -> None:
    """Refuse to replace what is no manifest, or in the place of its list no such list.

    Raises:
        UserError: Naming the file, also if `out` does not end in .jsonl.
    """
    MANIFEST.require(out)
    REJECTIONS.require_ours(errors_path(out))


def write_with_rejections(
    out: Path, header: Header, samples: Iterable[Sample], rejected: Sequence[RejectedInput]
) -> int:
    """Write a manifest to `out` and the rejections to <stem>.errors.jsonl beside it.

    Args:
        out: Manifest to write.
        header: Its first line.
        samples: In the order of the file.
        rejected: Without any, an errors file of an earlier run is removed.

    Returns:
        The exit status: 3 if anything was rejected.

    Raises:
        UserError: If a sample does not belong into a manifest.
    """
    write_manifest(out, header, samples)
    write_rejections(errors_path(out), rejected)
    return EXIT_REJECTED if rejected else EXIT_OK


def derive(
    manifest: Manifest,
    out: Path,
    samples: Iterable[Sample],
    rejected: Sequence[RejectedInput],
    notes: dict[str, Any],
) -> int:
    """Write a manifest of the same images with additional annotations.

    Args:
        manifest: Source of the samples; its roots are kept.
        out: Manifest to write; it may be the same file.
        samples: In the order of the new file.
        rejected: Written to <stem>.errors.jsonl, which is removed if there are none.
        notes: Added to those of the header.

    Returns:
        The exit status: 3 if anything was rejected.
    """
    folder, header = manifest.path.parent, manifest.header
    moved = replace(
        header,
        image_root=manifest.image_root_from(out),
        pseudo_root=relative_root(out, folder / header.pseudo_root),
        notes=header.notes | notes,
    )
    return write_with_rejections(out, moved, samples, rejected)


def is_list_beside(path: Path) -> bool:
    """Whether a file is a list that a job writes beside a manifest, such as train.errors.jsonl."""
    return path.name.endswith((".errors.jsonl", ".unannotated.jsonl"))


def errors_path(out: Path) -> Path:
    """The file of rejections beside a manifest: train.jsonl, train.errors.jsonl."""
    return out.parent / f"{out.stem}.errors.jsonl"  # `with_name` refuses the folder `.`


def unannotated_path(out: Path) -> Path:
    """The file of images without an annotation beside a manifest of `import-boxes`."""
    return out.parent / f"{out.stem}.unannotated.jsonl"


def write_rejections(path: Path, rows: Sequence[RejectedInput]) -> None:
    """Write one row per rejection; remove an earlier file if there are none."""
    if rows:
        write_jsonl(path, [row.as_row() for row in rows])
    else:
        path.unlink(missing_ok=True)
