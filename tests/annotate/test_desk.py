import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxpromptiml.annotate.desk import Desk
from boxpromptiml.annotate.layers import Layers
from boxpromptiml.annotate.photographs import Album, find_photographs
from boxpromptiml.annotate.storage import Outdated, Saved, Storage
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.sandbox import IsolatedDecoder
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.grabcut import GrabCutTeacher
from tests.annotate.test_layers import load_brightness, scene


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images.write_png(tmp_path / "photos" / "a.png", scene())
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(scene()).save(tmp_path / "photos" / f"o{orientation}.png", exif=exif)
    return tmp_path / "photos"


def make_desk(folder: Path, decode: IsolatedDecoder, saves: bool = True) -> Desk:
    layers = Layers(GrabCutTeacher(), Consensus(), load_brightness)
    photographs, _ = find_photographs(folder, {})
    storage = None
    if saves:
        out = folder.parent / "boxes.json"
        storage = Storage(out, folder, photographs, Saved(), "mine", "train")
    return Desk(Album(folder, photographs, decode), layers, storage, "ana", {"teacher": "grabcut"})


@pytest.fixture(scope="module")
def decode() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder() as decoder:
        yield decoder


@pytest.fixture
def desk(folder: Path, decode: IsolatedDecoder) -> Desk:
    return make_desk(folder, decode)


def change(**more: Any) -> bytes:
    plain = {"revision": 0, "verdict": "manipulated", "boxes": [[10, 20, 30, 50]],
             "finished": True, "seconds": 7.5}  # fmt: skip
    return json.dumps(plain | more).encode()


def test_what_is_saved_comes_back(desk: Desk) -> None:
    assert desk.state()["photographs"][0] == {"name": "a.png", "verdict": None, "finished": False}
    assert desk.save(0, change()) == {"revision": 1}
    found = desk.photograph(0)
    assert found["boxes"] == [(10, 20, 30, 50)]
    assert (found["verdict"], found["seconds"], found["annotator"]) == ("manipulated", 7.5, "ana")
    assert desk.state()["photographs"][0]["verdict"] == "manipulated"
    assert desk.summary()["manipulated"] == 1
    with pytest.raises(Outdated):
        desk.save(0, change())


@pytest.mark.parametrize("orientation", range(2, 9))
def test_boxes_on_turned_photographs_are_stored_right(
    desk: Desk, folder: Path, orientation: int
) -> None:
    """The pixels in the stored box are those that the person saw in hers, turned by Pillow."""
    number = orientation - 1
    found = desk.photograph(number)
    upright = (160, 90) if orientation >= 5 else (90, 160)
    assert (found["height"], found["width"]) == upright
    desk.save(number, change())
    assert desk.photograph(number)["boxes"] == [(10, 20, 30, 50)]

    sample = read_manifest(folder.parent / "boxes.jsonl").samples[number]
    (box,) = sample.boxes or ()
    x0, y0, x1, y1 = (int(side) for side in box)
    part = Image.fromarray(scene()[y0:y1, x0:x1])
    part.getexif()[274] = orientation
    from PIL import ImageOps

    whole = ImageOps.exif_transpose(Image.open(folder / f"o{orientation}.png"))
    assert whole.size == (found["width"], found["height"])
    seen = np.asarray(whole)[20:50, 10:30]
    np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(part)), seen)


def test_a_box_is_cut_to_the_photograph(desk: Desk) -> None:
    desk.save(0, change(boxes=[[-5, 30.123456, 10, 900]]))
    assert desk.photograph(0)["boxes"] == [(0, 30.12, 10, 90)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"boxes": [[10, 10, 5, 20]]}, {"boxes": [[0, 0, 0.001, 9]]}, {"boxes": [[200, 0, 300, 9]]},
        {"boxes": [[1, 2, 3]]}, {"boxes": []}, {"verdict": None}, {"verdict": "odd"},
        {"seconds": -1}, {"seconds": 1e9}, {"more": 1}, {"boxes": [[0, 0, 5, 5]] * 201},
        {"revision": None},
    ],
)  # fmt: skip
def test_nonsense_is_not_saved(desk: Desk, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"cannot be saved|inside the photograph"):
        desk.save(0, change(**wrong))
    assert desk.photograph(0)["verdict"] is None


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"boxes": NaN}', b"[" * 60_000])
def test_no_json_is_not_saved(desk: Desk, body: bytes) -> None:
    with pytest.raises(UserError, match="cannot be saved"):
        desk.save(0, body)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (-9, 0, -1, 9), (0, 0, float("nan"), 9)])
def test_a_mask_of_no_box_is_refused(desk: Desk, box: tuple[float, float, float, float]) -> None:
    with pytest.raises(UserError, match="inside the photograph of 160 x 90"):
        desk.mask(0, box)


def test_layers_and_picture_are_of_that_photograph(desk: Desk) -> None:
    assert desk.picture(0)[:2] == b"\xff\xd8"
    assert desk.mask(5, (18, 40, 72, 120)).area > 0.02  # orientation 6
    assert desk.map(0).score == 0.25


def test_a_page_without_storage_takes_uploads_and_saves_nothing(
    folder: Path, decode: IsolatedDecoder
) -> None:
    desk = make_desk(folder, decode, saves=False)
    assert desk.upload("C/../a b.png", (folder / "a.png").read_bytes()) == {
        "number": 8, "name": "a b.png"
    }  # fmt: skip
    assert desk.photograph(8)["width"] == 160
    with pytest.raises(UserError, match="saves nothing"):
        desk.save(8, change())
    with pytest.raises(RejectedInput, match=r"^torn\.png: "):
        desk.upload("torn.png", (folder / "a.png").read_bytes()[:80])
    assert desk.summary()["open"] == 0
    with pytest.raises(UserError, match="boxpromptiml page"):
        make_desk(folder, decode).upload("a.png", b"")
