"""A manifest from a manifest: the same images, with something more known of them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, RejectedInput
from boxpromptiml.io.files import write_jsonl
from boxpromptiml.manifests.manifest import Manifest, relative_root, write_manifest
from boxpromptiml.records import Sample


def rewrite(
    manifest: Manifest,
    out: Path,
    samples: Iterable[Sample],
    rejected: Sequence[RejectedInput],
    notes: dict[str, Any],
) -> int:
    """Write `samples` to `out` with the manifest's roots, and the errors beside it.

    Args:
        manifest: Where the samples come from.
        out: Manifest to write; it may be the same file.
        samples: In the order of the new file.
        rejected: Written to <stem>.errors.jsonl; for none that file is removed.
        notes: Added to those of the header.

    Returns:
        The exit status: 3 if anything was rejected.
    """
    folder, header = manifest.path.parent, manifest.header
    moved = replace(
        header,
        image_root=relative_root(out, folder / header.image_root),
        pseudo_root=relative_root(out, folder / header.pseudo_root),
        notes=header.notes | notes,
    )
    write_manifest(out, moved, samples)
    write_list(out.with_name(f"{out.stem}.errors.jsonl"), rejected)
    return EXIT_REJECTED if rejected else EXIT_OK


def write_list(path: Path, rows: Sequence[RejectedInput]) -> None:
    """Write one row a rejection; for none, remove what an earlier run wrote."""
    if rows:
        write_jsonl(path, [row.as_row() for row in rows])
    else:
        path.unlink(missing_ok=True)
