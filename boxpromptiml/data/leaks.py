"""Guards of a training run: no evaluation images in training, no stale pseudo-masks."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress

import numpy as np
import numpy.typing as npt

from boxpromptiml.errors import UserError
from boxpromptiml.manifests.sidecars import expected_fingerprint, mask_sha256, read_sidecar
from boxpromptiml.manifests.sources import Source
from boxpromptiml.records import Sample


def refuse_shared_images(train: Sequence[Source], others: Mapping[str, Sequence[Source]]) -> None:
    """Refuse sibling groups or identical files that occur both in training and in evaluation.

    Memory is 16 bytes an image: hashes of group and file; only equal hashes are compared in full.

    Args:
        train: The training images.
        others: The evaluation images, by the name to use in the message.

    Raises:
        UserError: If an image or a group is shared.
    """
    ours = _hashes(train)
    for name, other in others.items():
        theirs = _hashes(other)
        hits = np.intersect1d(ours, theirs)
        if not hits.size:
            continue
        first, second = (
            _ids_by_key(compress(sources, found[:, 0] | found[:, 1]))
            for sources, found in ((train, np.isin(ours, hits)), (other, np.isin(theirs, hits)))
        )
        if shared := sorted(first.keys() & second.keys()):
            raise UserError(
                f"{len(shared)} images or groups of siblings are in both training and {name}, for "
                f"example {first[shared[0]]!r} and {second[shared[0]]!r}: the score would be a leak"
            )


def _keys(sample: Sample) -> tuple[tuple[str, str], tuple[str, str]]:
    """Keys that must not occur in two splits: the sibling group and, if known, the file hash.

    Without a file hash the group is returned twice.
    """
    group = ("group", sample.group)  # datasets made from one source share groups
    return group, ("file", sample.image_sha256) if sample.image_sha256 else group


def _hashes(sources: Sequence[Source]) -> npt.NDArray[np.int64]:
    """Hashes (N, 2) of the keys of every source."""
    flat = (hash(key) for source in sources for key in _keys(source.sample))
    return np.fromiter(flat, np.int64, 2 * len(sources)).reshape(-1, 2)


def _ids_by_key(sources: Iterable[Source]) -> dict[tuple[str, str], str]:
    return {key: source.sample.id for source in sources for key in _keys(source.sample)}


def refuse_stale_pseudo_masks(sources: Iterable[Source], wanted: str | None) -> None:
    """Check that every pseudo-mask was made by the expected teacher from these images and boxes.

    Args:
        sources: Sources whose supervision is a pseudo-mask.
        wanted: The only teacher fingerprint to accept; None for the one in the manifest's header.

    Raises:
        UserError: If a pseudo-mask is of another teacher, image or boxes, or was changed since.
    """
    stale: list[str] = []
    for manifest, sample in sources:
        path = manifest.pseudo_mask_path(sample)
        if path is None or sample.label == 0:
            continue
        made_by = manifest.header.teacher_signature
        if made_by is None:
            raise UserError(f"{manifest.path}: the header names no teacher of its pseudo-masks")
        if wanted not in (None, made_by):
            raise UserError(
                f"{manifest.path}: pseudo-masks of teacher {made_by}, expected {wanted}; "
                "run `python -m data_prep pseudo-masks` again"
            )
        sidecar = read_sidecar(path)
        image_sha256 = sample.image_sha256 or sidecar.image_sha256
        expected = expected_fingerprint(sample, image_sha256, made_by)
        made = (sidecar.signature, sidecar.image_sha256, sidecar.mask_sha256)
        if made != (expected, image_sha256, mask_sha256(path)):
            stale.append(sample.id)
    if stale:
        raise UserError(
            f"{len(stale)} pseudo-masks are stale (made from other images, boxes or another "
            f"teacher, or changed since), for example {stale[0]!r}; run "
            "`python -m data_prep pseudo-masks` again"
        )
