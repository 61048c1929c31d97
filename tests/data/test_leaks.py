"""Training never sees images of the evaluation, nor pseudo-masks of other images or teachers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest, write_manifest
from boxpromptiml.records import Box
from tests.helpers.training import copy_of, make_data, with_pseudo_masks


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"boxes": (Box(1.0, 1.0, 9.0, 9.0),)}, "stale"),
        ({"image_sha256": "0" * 64}, "stale"),
    ],
)
def test_stale_pseudo_masks_are_refused(
    data_root: Path, tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    """The boxes or the image are no longer those that the pseudo-mask was made from."""
    root = with_pseudo_masks(copy_of(data_root, tmp_path))
    manifest = read_manifest(root / "train.jsonl")
    write_manifest(
        root / "train.jsonl",
        manifest.header,
        [replace(manifest.samples[0], **change), *manifest.samples[1:]],
    )
    with pytest.raises(UserError, match=match):
        make_data(root, supervision="pseudo").setup("fit")


def test_a_pseudo_mask_changed_by_hand_is_refused(data_root: Path, tmp_path: Path) -> None:
    root = with_pseudo_masks(copy_of(data_root, tmp_path))
    path = next((root / "pseudo").rglob("*.png"))
    images.write_png(path, np.zeros((64, 96), np.uint8))
    with pytest.raises(UserError, match="stale"):
        make_data(root, supervision="pseudo").setup("fit")


def test_another_teachers_pseudo_masks_are_refused(data_root: Path, tmp_path: Path) -> None:
    root = with_pseudo_masks(copy_of(data_root, tmp_path), made_by="teacher-1")
    make_data(root, supervision="pseudo", teacher_signature="teacher-1").setup("fit")
    with pytest.raises(UserError, match="teacher-1, expected teacher-2"):
        make_data(root, supervision="pseudo", teacher_signature="teacher-2").setup("fit")
    manifest = read_manifest(root / "train.jsonl")
    header = replace(manifest.header, teacher_signature="teacher-2")
    write_manifest(root / "train.jsonl", header, manifest.samples)
    with pytest.raises(UserError, match="stale"):
        make_data(root, supervision="pseudo").setup("fit")


def test_stale_pseudo_masks_are_refused_in_mixed_too(data_root: Path, tmp_path: Path) -> None:
    root = with_pseudo_masks(copy_of(data_root, tmp_path))
    next((root / "pseudo").rglob("*.png")).write_bytes(images.encode_png(np.zeros((64, 96), "u1")))
    with pytest.raises(UserError, match="stale"):
        make_data(root, supervision="mixed").setup("fit")


def test_shared_groups_and_missing_splits_are_errors(data_root: Path, tmp_path: Path) -> None:
    data = make_data(data_root)
    data.paths["val"] = [data_root / "train.jsonl"]
    with pytest.raises(UserError, match='"split": "val"'):
        data.setup("fit")
    manifest = read_manifest(data_root / "train.jsonl")
    header = replace(manifest.header, image_root=str(data_root / "train"))
    leak = write_manifest(
        tmp_path / "leak.jsonl", header, [replace(s, split="val") for s in manifest.samples]
    )
    data.paths["val"] = [leak.path]
    with pytest.raises(UserError, match="leak"):
        data.setup("fit")
    renamed = [replace(s, split="val", group=f"x{s.group}") for s in manifest.samples]
    write_manifest(leak.path, header, renamed)
    with pytest.raises(UserError, match="leak"):  # the same files under another group
        data.setup("fit")
    data.paths["train"] = [data_root / "train.jsonl"] * 2
    with pytest.raises(UserError, match="--name"):
        data.setup("fit")
    data.paths["train"] = []
    with pytest.raises(UserError, match=r"--data\.train"):
        data.setup("fit")
