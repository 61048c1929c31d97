import json
import logging
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxpromptiml.io.files import fingerprint
from boxpromptiml.records import Description, ImageArray, RegionArray, Segmenter
from boxpromptiml.segmenters.cache import CachedSegmenter
from boxpromptiml.segmenters.superpixels import SlicSegmenter


class Counting:
    """Brightness as region number, and how often it was asked."""

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.asked = 0

    @property
    def settings(self) -> Description:
        return {"name": "counting", "version": self.version}

    def regions(self, image: ImageArray) -> RegionArray:
        self.asked += 1
        return image[..., 0].astype(np.int32) * self.version


def an_image(seed: int = 0, size: tuple[int, int] = (6, 8)) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def only_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.npz")
    return path


def test_asks_once_an_image(tmp_path: Path) -> None:
    inner = Counting()
    cached: Segmenter = CachedSegmenter(inner, tmp_path)
    for _ in range(2):
        for seed in range(3):
            image = an_image(seed)
            labels = cached.regions(image)
            np.testing.assert_array_equal(labels, image[..., 0])
            assert labels.dtype == np.int32
    assert inner.asked == 3
    assert cached.settings == inner.settings
    again = Counting()
    CachedSegmenter(again, tmp_path).regions(an_image(2))  # another run
    assert again.asked == 0


def test_layout(tmp_path: Path) -> None:
    inner = Counting()
    CachedSegmenter(inner, tmp_path).regions(an_image())
    folder = tmp_path / fingerprint(inner.settings)[:16]
    assert [path.parent for path in tmp_path.rglob("*.npz")] == [folder]
    assert json.loads((folder / "segmenter.json").read_text()) == inner.settings
    assert len(list(tmp_path.rglob("*"))) == 3  # no temporary file is left


def test_the_same_bytes_in_another_shape_are_another_image(tmp_path: Path) -> None:
    inner = Counting()
    cached = CachedSegmenter(inner, tmp_path)
    image = an_image()
    assert cached.regions(image).shape == (6, 8)
    assert cached.regions(image.reshape(8, 6, 3)).shape == (8, 6)
    cached.regions(np.asfortranarray(image))
    cached.regions(an_image(0, (6, 16))[:, ::2])  # a view that is not contiguous
    assert inner.asked == 3


def test_changed_settings_never_meet_old_regions(tmp_path: Path) -> None:
    for version in (1, 2):
        inner = Counting(version)
        labels = CachedSegmenter(inner, tmp_path).regions(an_image())
        np.testing.assert_array_equal(labels, an_image()[..., 0].astype(int) * version)
        assert inner.asked == 1


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    bad: dict[str, Any] = {
        "shape": {"regions": np.zeros((3, 3), np.int32)},
        "type": {"regions": np.zeros((6, 8), np.float32)},
        "negative": {"regions": np.full((6, 8), -1, np.int32)},
        "name": {"labels": np.zeros((6, 8), np.int32)},
        "objects": {"regions": np.array([Bomb()] * 48).reshape(6, 8)},
    }
    match how:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "flipped":
            middle = len(whole) // 2
            path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
        case "pickle":
            path.write_bytes(pickle.dumps(Bomb()))
        case "text":
            path.write_text("hello")
        case _:
            np.savez(path, **bad[how])


@pytest.mark.parametrize(
    "how",
    ["empty", "cut", "flipped", "pickle", "text", "shape", "type", "negative", "name", "objects"],
)
def test_damaged_files_are_made_again(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    inner = Counting()
    cached = CachedSegmenter(inner, tmp_path / "cache")
    cached.regions(an_image())
    damage(only_file(tmp_path), how)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(cached.regions(an_image()), an_image()[..., 0])
    assert inner.asked == 2
    assert "made again" in caplog.text
    assert not (tmp_path / "exploded").exists()
    cached.regions(an_image())
    assert inner.asked == 2  # written again


def _fill(folder: Path) -> None:
    cached = CachedSegmenter(SlicSegmenter(segments=9), folder)
    for seed in range(4):
        cached.regions(an_image(seed, (20, 30)))


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    workers = [
        multiprocessing.get_context("fork").Process(target=_fill, args=(tmp_path,))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(list(tmp_path.rglob("*"))) == 1 + 1 + 4  # folder, description, images
    cached = CachedSegmenter(SlicSegmenter(segments=9), tmp_path)
    for seed in range(4):
        image = an_image(seed, (20, 30))
        np.testing.assert_array_equal(cached.regions(image), SlicSegmenter(9).regions(image))
