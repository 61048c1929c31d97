import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from boxpromptiml.annotate import layers as layers_module
from boxpromptiml.annotate.layers import Layer, Layers, picture
from boxpromptiml.errors import UserError
from boxpromptiml.inference.localizer import Localized, Localizer
from boxpromptiml.records import MANIPULATED, UNSURE, Box, BoxArray, ImageArray, Proposal
from boxpromptiml.teachers.consensus import Consensus, pseudo_mask
from boxpromptiml.teachers.grabcut import GrabCutTeacher
from boxpromptiml.visualization.overlays import FLAGGED


class Filled:
    """A teacher that proposes the whole box, and remembers what it was shown."""

    settings: dict[str, Any] = {}  # noqa: RUF012 - of the protocol

    def __init__(self) -> None:
        self.shown: list[tuple[int, ...]] = []

    def propose(self, image: ImageArray, boxes: BoxArray) -> list[Proposal]:
        self.shown.append(image.shape)
        masks = [np.zeros(image.shape[:2], bool) for _ in boxes]
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
            mask[y0:y1, x0:x1] = True
        return [Proposal(m, 0.75, Box(*b), "odd") for m, b in zip(masks, boxes, strict=True)]


class Brightness:
    """A student whose probability is the red channel."""

    class spec:  # noqa: N801 - an attribute of the student
        threshold = 0.5

    def localize(self, found: Any) -> list[Localized]:
        return [Localized((one[..., 0] / 255).astype(np.float32), 0.25) for one in found]


def load_brightness() -> Localizer:
    student: Any = Brightness()
    return student


def scene(height: int = 90, width: int = 160) -> ImageArray:
    rows, columns = np.mgrid[:height, :width]
    pixels = np.random.default_rng(0).integers(40, 90, (height, width, 3))
    inside = ((rows - height / 2) / (height / 5)) ** 2
    inside = inside + ((columns - width / 2) / (width / 5)) ** 2
    pixels[inside < 1] += np.array([120, 60, 20])
    return pixels.astype(np.uint8)


def decoded(layer: Layer) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(layer.png)))


def marked(layer: Layer) -> npt.NDArray[np.bool_]:
    """Pixels of the photograph, in the layer's window, that are tinted or outlined."""
    times = round(decoded(layer).shape[1] / (layer.window.x1 - layer.window.x0))
    rgba = decoded(layer)[times // 2 :: times, times // 2 :: times]
    return (rgba[..., 3] > 0) & (rgba[..., 0] > rgba[..., 2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_and_reduced(
    orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers_module, "SHOWN_SIDE", 80)
    rows, columns = np.mgrid[:90, :160]
    image = np.dstack([columns, rows, 0 * rows]).astype(np.uint8)
    shown = Image.open(io.BytesIO(picture(image, orientation)))
    stored = Image.fromarray(image)
    stored.getexif()[274] = orientation
    upright = ImageOps.exif_transpose(stored)
    assert max(shown.size) == 80
    assert shown.size == (upright.width // 2, upright.height // 2)
    expected = np.asarray(upright.resize(shown.size, Image.Resampling.BOX), float)
    assert np.abs(np.asarray(shown, float) - expected).mean() < 2  # JPEG


def test_small_pictures_keep_their_size() -> None:
    assert Image.open(io.BytesIO(picture(scene(), 1))).size == (160, 90)


@pytest.mark.parametrize("copies", [1, 3])
def test_the_mask_is_that_of_the_job(copies: int) -> None:
    image, box, consensus = scene(), Box(40, 18, 120, 72), Consensus(copies)
    layer = Layers(GrabCutTeacher(), consensus, load_brightness).mask(image, box, 1)
    boxes = np.array([box], np.float32)
    trimap, judgements = pseudo_mask(GrabCutTeacher(), image, boxes, consensus)
    x0, y0, x1, y1 = (int(side) for side in layer.window)
    np.testing.assert_array_equal(marked(layer), trimap[y0:y1, x0:x1] == MANIPULATED)
    assert layer.area == pytest.approx((trimap == MANIPULATED).mean())
    assert layer.score == judgements[0].score
    assert ((decoded(layer)[..., 2] > 150).any()) == (trimap == UNSURE).any()
    assert (x0, y0, x1, y1) < (40, 18, 160, 90)  # no more than the box and its surroundings


def test_other_teachers_see_the_whole_photograph() -> None:
    teacher = Filled()
    layer = Layers(teacher, Consensus(), load_brightness).mask(scene(), Box(8, 8, 40, 24), 1)
    assert teacher.shown == [(90, 160, 3)]
    assert (layer.score, layer.note) == (0.75, "odd")
    assert marked(layer).sum() == 32 * 16
    assert layer.area == pytest.approx(32 * 16 / (90 * 160))


@pytest.mark.parametrize("orientation", [3, 6])
def test_layers_lie_where_the_photograph_shows_it(orientation: int) -> None:
    """The layer put over an empty picture covers what Pillow's upright mask covers."""
    teacher = Filled()
    layer = Layers(teacher, Consensus(), load_brightness).mask(
        scene(), Box(8, 8, 40, 24), orientation
    )
    stored = np.zeros((90, 160), np.uint8)
    stored[8:24, 8:40] = 255
    turned = Image.fromarray(stored)
    turned.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turned)) > 0
    x0, y0, x1, y1 = (int(side) for side in layer.window)
    seen = np.zeros_like(expected)
    seen[y0:y1, x0:x1] = marked(layer)
    np.testing.assert_array_equal(seen, expected)


def test_layers_of_large_photographs_are_reduced() -> None:
    image = np.zeros((3000, 4000, 3), np.uint8)
    layer = Layers(Filled(), Consensus(), load_brightness).mask(image, Box(0, 0, 4000, 3000), 1)
    assert decoded(layer).shape == (750, 1000, 4)
    assert layer.window == Box(0, 0, 4000, 3000)
    assert tuple(decoded(layer)[400, 500, :3]) == FLAGGED


def test_the_map_is_the_students() -> None:
    layers = Layers(Filled(), Consensus(), load_brightness)
    layer = layers.map(scene(), 6)
    assert decoded(layer).shape == (160, 90, 4)
    assert (layer.window, layer.score) == (Box(0, 0, 90, 160), 0.25)
    assert layer.area == pytest.approx((scene()[..., 0] > 127).mean())
    opaque = decoded(layer)[..., 3]
    assert opaque[80, 45] > opaque[5, 5]  # the bright middle


def test_a_student_is_loaded_when_it_is_asked_for_and_once() -> None:
    asked: list[int] = []

    def load() -> Localizer:
        asked.append(1)
        if len(asked) == 1:
            raise UserError("no weights yet")
        return load_brightness()

    layers = Layers(Filled(), Consensus(), load)
    assert asked == []
    with pytest.raises(UserError, match="no weights yet"):
        layers.map(scene(), 1)
    layers.map(scene(), 1)
    layers.map(scene(), 1)
    assert len(asked) == 2
