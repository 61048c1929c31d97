import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxpromptiml.annotate.order import disagreement, most_useful_first, shuffled
from boxpromptiml.annotate.photographs import Album, Photograph, find_photographs
from boxpromptiml.inference.localizer import Localized
from boxpromptiml.io import images
from boxpromptiml.io.sandbox import IsolatedDecoder
from boxpromptiml.records import ProbArray
from tests.annotate.test_layers import Filled

IMAGE = np.zeros((20, 30, 3), np.uint8)


def peak(rows: slice, columns: slice, height: float = 0.9) -> ProbArray:
    prob = np.full((20, 30), 0.01, np.float32)
    prob[rows, columns] = height
    return prob


class Reds:
    """A student whose probability is the red channel; counts the images it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def localize(self, found: Any) -> list[Localized]:
        self.seen += len(found)
        return [Localized((one[..., 0] / 255).astype(np.float32), 0.5) for one in found]


@pytest.fixture
def album(tmp_path: Path) -> Iterator[Album]:
    """`a`: a rectangle, on which both agree; `b`: an L; `c`: a thin diagonal; `d`: damaged."""
    for name, fill in (("a", np.s_[5:15, 5:20]), ("b", np.s_[5:15, 5:8]), ("c", None)):
        pixels = IMAGE.copy()
        if fill is None:
            pixels[range(20), range(20), 0] = 200
        else:
            pixels[(*fill, 0)] = 200
        if name == "b":
            pixels[12:15, 5:20, 0] = 200
        images.write_png(tmp_path / f"{name}.png", pixels)
        images.write_png(tmp_path / "d.png", IMAGE)
    with IsolatedDecoder() as decode:
        yield Album(tmp_path, find_photographs(tmp_path, {})[0], decode)


def test_disagreement_by_hand() -> None:
    """The teacher fills the box: what the student's region lacks of its box counts."""
    assert disagreement(peak(np.s_[2:12], np.s_[3:13]), IMAGE, Filled()) == 0
    corner = peak(np.s_[2:12], np.s_[3:13])
    corner[2:7, 3:8] = 0
    assert disagreement(corner, IMAGE, Filled()) == pytest.approx(0.25)
    far = peak(np.s_[2:12], np.s_[3:13])
    far[15:20, 20:30] = 0.8  # another region, which is not that of the highest probability
    assert disagreement(far, IMAGE, Filled()) == 0


def test_a_map_without_contrast_says_nothing() -> None:
    for value in (0.0, 0.3, 1.0):
        assert disagreement(np.full((20, 30), value, np.float32), IMAGE, Filled()) == 0


def test_most_useful_first_and_at_once_the_second_time(album: Album, tmp_path: Path) -> None:
    (tmp_path / "d.png").write_bytes(b"no longer")
    scores = tmp_path / "boxes.order.json"
    student = Reds()
    asked: Any = student
    for weights, seen in (("one", 3), ("one", 3), ("two", 6)):
        found = most_useful_first(album, asked, weights, Filled(), scores)
        assert [one.name for one in found] == ["c.png", "b.png", "a.png", "d.png"]
        assert student.seen == seen
    assert len(json.loads(scores.read_text())) == 2


def test_a_shuffle_is_the_same_every_time() -> None:
    every = [Photograph(f"{number}.jpg", (1, 1), 1, "") for number in range(50)]
    order = [one.name for one in shuffled(every)]
    assert order != sorted(order)
    assert sorted(order) == sorted(one.name for one in every)
    fewer = [one.name for one in shuffled(every[:40])]
    assert fewer == [name for name in order if name in fewer]
