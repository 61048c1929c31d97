"""benchmarks/others/maps.py, as far as it runs without pyIFD; the rest has --self_test."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.others import maps
from boxpromptiml.io import images
from boxpromptiml.io.map_files import read_map


def test_a_copied_block_and_its_source_correlate() -> None:
    image, truth = maps.example("copymove")
    found = maps.copy_move("", image)
    assert maps.area_under_roc(found, truth) > 0.9
    inside = cv2.erode(truth.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    assert found[inside].min() > 0.9


@pytest.mark.parametrize("method", ["noise", "ela"])
def test_an_image_without_a_copy_has_the_map_zero(method: str) -> None:
    image, _ = maps.example(method)
    assert not maps.copy_move("", image).any()
    assert not maps.copy_move("", np.full((40, 50, 3), 90, np.uint8)).any()  # no keypoint at all


@pytest.mark.parametrize("sigma", [1.0, 16.0])
def test_a_region_of_less_and_of_more_noise_is_unusual(sigma: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(4.0, (96, 128))
    values[32:64, 32:80] = rng.exponential(sigma, (32, 48))
    truth = np.zeros(values.shape, bool)
    truth[32:64, 32:80] = True
    found = maps.unusual(values, (96, 128))
    assert 0 <= found.min() <= found.max() < 1
    assert maps.area_under_roc(found, truth) > 0.95


def test_the_area_under_the_curve_counts_ties_as_one_half() -> None:
    truth = np.array([[True, True, False, False]])
    found = np.array([[0.5, 0.9, 0.5, 0.1]], np.float32)
    assert maps.area_under_roc(found, truth) == pytest.approx(7 / 8)


def test_bad_images_are_listed_and_the_others_mapped(tmp_path: Path) -> None:
    image, _ = maps.example("copymove")
    folder = tmp_path / "photos"
    folder.mkdir()
    images.write_jpeg(folder / "good.jpg", image, 95)
    (folder / "bad.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not an image")
    assert maps.run("copymove", [folder], tmp_path / "out") == 3
    (error,) = (tmp_path / "out/copymove/errors.jsonl").read_text().splitlines()
    assert json.loads(error)["path"].endswith("bad.jpg")
    stored = read_map(tmp_path / "out/copymove/photos/good.jpg.png")
    assert stored.levels.shape == image.shape[:2]
    assert stored.prob.max() > 0.9


def test_maps_of_a_manifest_are_named_by_its_image_paths(tmp_path: Path) -> None:
    rows = [{"image_root": "data"}, {"image": "a/x.jpg"}, {"image": "b/x.jpg"}]
    manifest = tmp_path / "test.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    named = maps.images_of([manifest])
    assert named == {name: tmp_path / "data" / name for name in ("a/x.jpg", "b/x.jpg")}


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "photos").mkdir(parents=True)
        (tmp_path / place / "photos/x.jpg").touch()
    with pytest.raises(SystemExit, match=r"photos/x\.jpg"):
        maps.images_of([tmp_path / "one/photos", tmp_path / "two/photos"])
