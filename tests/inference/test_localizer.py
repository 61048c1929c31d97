from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.geometry import shrink
from boxpromptiml.inference import localizer as module
from boxpromptiml.inference import spec
from boxpromptiml.inference.localizer import Localizer, Picture
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io import images
from boxpromptiml.models.configs import StudentConfig
from boxpromptiml.models.inputs import FloatArray, NetworkInput
from boxpromptiml.records import ImageArray, ProbArray
from tests.helpers.models import brightness

SPEC = ModelSpec(StudentConfig("mobilenetv3_small_050"), NetworkInput("native", (64, 64)), 0.5)


def grey(size: tuple[int, int], level: int) -> ImageArray:
    return np.full((*size, 3), level, np.uint8)


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(st.lists(sizes, max_size=12), st.integers(1, 5), st.booleans())
def test_a_stream_gives_every_image_what_it_gets_alone(
    shapes: list[tuple[int, int]], batch_size: int, tile: bool
) -> None:
    localizer = Localizer(brightness, SPEC)
    pixels = [grey(shape, 20 * number) for number, shape in enumerate(shapes)]
    found = list(localizer.localize_each(enumerate(pixels), batch_size, tile))
    assert [number for number, _, _ in found] == list(range(len(pixels)))
    for number, image, one in found:
        assert image is pixels[number]
        (alone,) = localizer.localize([image], tile)
        np.testing.assert_allclose(one.prob, alone.prob, atol=1e-6)
        assert one.score == pytest.approx(alone.score)


@pytest.mark.parametrize(("limit", "ahead"), [(10**9, 3), (50, 2), (1, 1)])
def test_no_more_than_a_batch_is_decoded_ahead(
    monkeypatch: pytest.MonkeyPatch, limit: int, ahead: int
) -> None:
    monkeypatch.setattr(module, "_MAX_BATCH_PIXELS", limit)
    decoded, most, used = 0, 0, 0

    def decode() -> Iterator[tuple[int, ImageArray]]:
        nonlocal decoded, most
        for number in range(10):
            decoded += 1
            most = max(most, decoded - used)
            yield number, grey((5, 5), number)

    for _ in Localizer(brightness, SPEC).localize_each(decode(), batch_size=3):
        used += 1
    assert (used, most) == (10, ahead)


def test_one_or_many_paths_or_arrays(checkpoint: Path, photos: Path) -> None:
    localizer = Localizer.load(str(checkpoint))
    array, _ = images.read_image(photos / "a.jpg")
    one = localizer(array)
    many = localizer([photos / "a.jpg", array])
    np.testing.assert_allclose(many[0], one, atol=1e-5)
    np.testing.assert_allclose(many[1], one, atol=1e-5)
    with pytest.raises(UserError, match="uint8"):
        localizer(array.astype(np.float32))
    with pytest.raises(RejectedInput):
        localizer(photos / "none.jpg")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> ImageArray:
    """An image that is tiled without being asked for."""
    monkeypatch.setattr(spec, "MAX_WHOLE_PIXELS", 100 * 150 - 1)
    monkeypatch.setattr(module, "_NATIVE_TILE", 96)
    monkeypatch.setattr(module, "_WHOLE_SIDE", 75)
    coarse = np.random.default_rng(0).integers(0, 256, (10, 15, 3), dtype=np.uint8)
    return coarse.repeat(10, 0).repeat(10, 1)


def logits(prob: ProbArray) -> FloatArray:
    return np.asarray(np.log(prob) - np.log1p(-prob), np.float32)


def test_large_images_are_read_at_two_scales(checkpoint: Path, large: ImageArray) -> None:
    localizer = Localizer.load(checkpoint)
    (tiles,), (both,) = localizer.localize([large], tile=True), localizer.localize([large])
    whole = logits(localizer(shrink(large, 75)))
    enlarged = cv2.resize(whole, (150, 100), interpolation=cv2.INTER_LINEAR)
    assert np.abs(both.prob - tiles.prob).max() > 1e-3
    np.testing.assert_allclose(logits(both.prob), (logits(tiles.prob) + enlarged) / 2, atol=1e-4)
    assert both.score == tiles.score


def test_flips_are_averaged_in_images_that_are_seen_whole(
    checkpoint: Path, large: ImageArray
) -> None:
    plain, flips = Localizer.load(checkpoint), Localizer.load(checkpoint, flips=True)
    image = large[:90]
    mirrored = [logits(plain(np.ascontiguousarray(np.flip(image, axis)))) for axis in (1, 0)]
    parts = [logits(plain(image)), mirrored[0][:, ::-1], mirrored[1][::-1]]
    np.testing.assert_allclose(logits(flips(image)), np.mean(parts, axis=0), atol=1e-4)
    np.testing.assert_array_equal(flips(large), plain(large))


@pytest.mark.parametrize("size", [(1, 300), (300, 2)])
def test_strips_that_shrink_to_nothing(
    checkpoint: Path, large: ImageArray, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec, "MAX_WHOLE_PIXELS", 99)
    strip = np.resize(large, (*size, 3))
    assert Localizer.load(checkpoint)(strip).shape == size


def test_a_missing_gpu_is_said(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"GPU|unknown"):
        Localizer.load(checkpoint, device="cuda" if not torch.cuda.is_available() else "none")


def test_pictures_in_any_form_are_the_same_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    localizer = Localizer.load()
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    forms: list[Picture] = [
        tmp_path / "x.png", str(tmp_path / "x.png"), pixels, Image.fromarray(pixels), planes,
        planes / 255,
    ]  # fmt: skip
    expected = localizer(pixels)
    assert all(np.array_equal(localizer(form), expected) for form in forms)
    assert all(np.allclose(one, expected, atol=1e-5) for one in localizer(forms))
    for wrong in (planes.permute(1, 2, 0), planes.float(), pixels[..., 0]):
        with pytest.raises(UserError, match=r"an image|a float image"):
            localizer(wrong)
