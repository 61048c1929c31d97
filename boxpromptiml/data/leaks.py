"""What must never reach a training run: images of the evaluation, and stale pseudo-masks."""

from collections.abc import Sequence

from boxpromptiml.data.supervision import Source
from boxpromptiml.errors import UserError
from boxpromptiml.sidecars import expected_signature, mask_sha256, read_sidecar


def refuse_shared_images(train: Sequence[Source], other: Sequence[Source], name: str) -> None:
    """Neither sibling groups nor equal files may be on both sides."""

    def keys(sources: Sequence[Source]) -> dict[tuple[str, str], str]:
        samples = [source.sample for source in sources]
        found: dict[tuple[str, str], str] = {}
        for sample in samples:
            found["group", sample.group] = sample.id  # data sets made of one source share groups
            if sample.image_sha256:
                found["file", sample.image_sha256] = sample.id
        return found

    ours, theirs = keys(train), keys(other)
    shared = sorted(ours.keys() & theirs.keys())
    if shared:
        raise UserError(
            f"{len(shared)} images or groups of siblings are in both training and {name}, for "
            f"example {ours[shared[0]]!r} and {theirs[shared[0]]!r}: the score would be a leak"
        )


def refuse_stale_pseudo_masks(sources: Sequence[Source], wanted: str | None) -> None:
    """UserError unless every pseudo-mask was made from these images and boxes by one teacher.

    Args:
        sources: What is trained on from its pseudo-mask.
        wanted: The only teacher signature to accept; None for whichever the header names.
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
        expected = expected_signature(sample, image_sha256, made_by)
        if sidecar.signature != expected or mask_sha256(path) != sidecar.mask_sha256:
            stale.append(sample.id)
    if stale:
        raise UserError(
            f"{len(stale)} pseudo-masks are stale (made from other images, boxes or another "
            f"teacher, or changed since), for example {stale[0]!r}; run "
            "`python -m data_prep pseudo-masks` again"
        )
