"""Photographs and objects that manifests list: authentic images, and forged ones with masks."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.manifests.sources import Source, ground_truth, read_sources
from boxpromptiml.synth.regions import connected_parts
from data_prep.forgery.outlines import Outlines, encode_outline
from data_prep.forgery.photographs import InspectedPhoto, PhotoInspector

_MIN_OBJECT = 0.002  # fraction of the image; smaller parts of a mask are specks


class Listed(NamedTuple):
    """An image of a manifest, and the ids of all samples that have the same file."""

    source: Source
    ids: tuple[str, ...]


def list_manifests(option: str, paths: Sequence[Path], label: int) -> list[Listed]:
    """The images of manifests that have a label, each file once by its hash in the manifest.

    Args:
        option: That named the manifests, for messages.
        paths: Of the manifests.
        label: 0 for authentic images; 1 for forged ones, of which those with a mask are listed.

    Raises:
        UserError: If a manifest is missing or wrong, or there is no such image.
    """
    files: dict[str, Listed] = {}
    for source in read_sources(paths) if paths else ():
        sample = source.sample
        if sample.label != label or (label and sample.mask is None):
            continue
        manifest = replace(source.manifest, samples=source.manifest.samples[:0])  # for workers
        key = sample.image_sha256 or os.path.normpath(
            manifest.path.parent.absolute() / manifest.header.image_root / sample.image
        )
        known = files.get(key, Listed(Source(manifest, sample), ()))
        files[key] = known._replace(ids=(*known.ids, sample.id))
    if paths and not files:
        wanted = "forged image with a mask" if label else "authentic image"
        raise UserError(f"{option} {', '.join(map(str, paths))}: no {wanted}")
    return list(files.values())


Candidate = tuple[str, Path] | Listed  # key and path of a file of a folder, or from a manifest


@dataclass(frozen=True, slots=True)
class CandidateInspector:
    """Decides which images can be used; of a manifest's masks the parts become outlines.

    Attributes:
        outlines: Of the objects in files of folders, by their keys.
        max_side: Larger images are shrunk to this many pixels before they are forged.
        min_side: Images with a side of fewer pixels, after that, are rejected.
    """

    outlines: Mapping[str, Outlines]
    max_side: int | None
    min_side: int

    def __call__(self, candidate: Candidate) -> InspectedPhoto:
        """Inspect one image."""
        inspector = PhotoInspector(self.outlines, self.max_side, self.min_side)
        if not isinstance(candidate, Listed):
            return inspector(candidate)
        manifest, sample = candidate.source
        try:
            path = manifest.image_path(sample)
            photo, rejected = inspector((sample.id, path))
            if photo is None:
                return InspectedPhoto(None, rejected)
            if sample.image_sha256 not in (None, photo.sha256):
                raise RejectedInput(path, "changed", "the file's SHA-256 is not the manifest's")
            outlines = _outlines(candidate.source)
        except RejectedInput as error:
            return InspectedPhoto(None, [error])
        photo = replace(photo, outlines=outlines, ids=candidate.ids, group=sample.group)
        return InspectedPhoto(photo, [])


def _outlines(source: Source) -> tuple[bytes, ...]:
    """The parts of a forged image's mask as compressed run lengths; none of an authentic image.

    Raises:
        RejectedInput: If the mask cannot be used.
    """
    if not source.sample.label:
        return ()
    parts = connected_parts(ground_truth(source))
    large = (part for part in parts if np.count_nonzero(part) >= _MIN_OBJECT * part.size)
    return tuple(encode_outline(part) for part in large)
