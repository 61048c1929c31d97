from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Header, write_manifest
from boxpromptiml.records import Sample
from data_prep.forgery.manifest_photographs import CandidateInspector, list_manifests
from data_prep.forgery.outlines import decode_outline
from tests.helpers.pictures import picture

SIZE = (60, 90)
INSPECTOR = CandidateInspector({}, None, 48)


def listed(folder: Path, name: str, image: int, mask: bool = False) -> Sample:
    """A written sample: an authentic picture, or a forged one with a mask of two parts."""
    path = folder / f"{name}.png"
    images.write_png(path, picture(SIZE, image))
    parts = np.zeros(SIZE, np.uint8)
    parts[5:20, 5:30] = parts[30:50, 40:80] = 255
    parts[0, 80] = 255  # a speck
    if mask:
        images.write_png(folder / f"{name}_mask.png", parts)
    return Sample(
        id=f"set/{name}",
        dataset="set",
        split="train",
        group=f"set/group of {name}",
        image=path.name,
        size=SIZE,
        label=int(mask),
        boxes=None,
        mask=f"{name}_mask.png" if mask else None,
        image_sha256=images.probe(path).sha256,
    )


def manifest(folder: Path, samples: list[Sample]) -> Path:
    path = folder / "set.jsonl"
    write_manifest(path, Header(), samples)
    return path


def test_the_same_file_is_listed_once_with_all_its_ids(tmp_path: Path) -> None:
    samples = [listed(tmp_path, "a", 0), listed(tmp_path, "b", 1), listed(tmp_path, "c", 0)]
    found = list_manifests("--manifest", [manifest(tmp_path, samples)], 0)
    assert [one.ids for one in found] == [("set/a", "set/c"), ("set/b",)]
    photo, rejected = INSPECTOR(found[0])
    assert not rejected
    assert photo is not None
    assert (photo.key, photo.ids, photo.group) == ("set/a", ("set/a", "set/c"), "set/group of a")
    assert photo.outlines == ()


def test_of_forged_images_the_parts_of_the_mask_become_outlines(tmp_path: Path) -> None:
    samples = [listed(tmp_path, "a", 0), listed(tmp_path, "f", 1, mask=True)]
    (found,) = list_manifests("--objects", [manifest(tmp_path, samples)], 1)
    photo, _ = INSPECTOR(found)
    assert photo is not None
    parts = [decode_outline(outline, SIZE) for outline in photo.outlines]
    assert [int(part.sum()) for part in parts] == [15 * 25, 20 * 40]
    truth = images.read_mask(tmp_path / "f_mask.png")
    count, _ = cv2.connectedComponents(truth.astype(np.uint8))
    assert len(parts) == count - 2  # neither the background nor the speck


def test_a_manifest_without_such_images_is_refused(tmp_path: Path) -> None:
    path = manifest(tmp_path, [listed(tmp_path, "a", 0)])
    with pytest.raises(UserError, match=r"--objects .*no forged image with a mask"):
        list_manifests("--objects", [path], 1)
    assert list_manifests("--objects", [], 1) == []


def test_files_that_are_not_the_manifests_are_rejected(tmp_path: Path) -> None:
    forged = listed(tmp_path, "f", 1, mask=True)
    samples = [replace(listed(tmp_path, "a", 0), image_sha256="0" * 64), forged]
    path = manifest(tmp_path, samples)
    (tmp_path / "f_mask.png").write_bytes(b"")
    reasons = [
        error.reason
        for label in (0, 1)
        for one in list_manifests("--manifest", [path], label)
        for error in INSPECTOR(one).rejected
    ]
    assert reasons == ["changed", "empty"]


def test_a_path_that_leads_out_costs_its_image(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    sample = replace(listed(outside, "a", 0), image_sha256=None)
    (root / "a.png").symlink_to(outside / "a.png")
    (found,) = list_manifests("--manifest", [manifest(root, [sample])], 0)
    photo, (error,) = INSPECTOR(found)
    assert photo is None
    assert error.reason == "bad_path"


def test_a_file_of_a_folder_is_inspected_as_ever(tmp_path: Path) -> None:
    images.write_png(tmp_path / "a.png", picture(SIZE, 0))
    photo, _ = INSPECTOR(("a.png", tmp_path / "a.png"))
    assert photo is not None
    assert (photo.ids, photo.group) == ((), None)
