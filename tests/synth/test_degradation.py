import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from boxpromptiml.errors import UserError
from boxpromptiml.records import ImageArray
from boxpromptiml.synth import degradation as degrade
from boxpromptiml.synth.degradation import (
    NAMES,
    PLATFORMS,
    Degradation,
    DegradationName,
    PlatformName,
    expand,
    upload,
)
from boxpromptiml.synth.photos import bundled_photo

PHOTO = bundled_photo("astronaut.png")[:96, :128].copy()
EXACT = st.one_of(
    st.builds(Degradation, st.just("jpeg"), st.integers(1, 100).map(float)),
    st.builds(Degradation, st.just("blur"), st.integers(0, 499).map(lambda n: 2.0 * n + 1)),
    st.builds(Degradation, st.just("noise"), st.integers(0, 2550).map(lambda n: n / 10)),
    st.builds(Degradation, st.just("rescale"), st.integers(1, 400).map(lambda n: n / 100)),
    st.builds(Degradation, st.sampled_from(("none", *PLATFORMS))),
)


@given(EXACT)
def test_words_and_degradations_are_inverse(degradation: Degradation) -> None:
    assert Degradation.parse(str(degradation)) == degradation


@pytest.mark.parametrize(
    "word",
    ["jpeg", "jpeg:0", "jpeg:101", "jpeg:70.5", "jpeg:nan", "jpeg:x", "jpeg:", "blur:4", "blur:-1",
     "blur:inf", "noise:-1", "noise:nan", "noise:inf", "rescale:0", "rescale:5", "none:1",
     "weibo:80", "sharpen:1", ""],
)  # fmt: skip
def test_a_wrong_name_or_level_says_what_is_wanted(word: str) -> None:
    with pytest.raises(UserError, match="degrade: ") as caught:
        Degradation.parse(word)
    name = word.partition(":")[0]
    assert name in str(caught.value)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "noise"])
def test_every_name_does_what_its_function_does(name: DegradationName) -> None:
    level = {"jpeg": 60, "blur": 5, "rescale": 0.5}.get(name)
    result = Degradation(name, level)(PHOTO, seed=0, sample_id="a")
    if name == "none":
        expected = PHOTO
    elif name in PLATFORMS:
        expected = upload(PHOTO, name)
    else:
        expected = getattr(degrade, name)(PHOTO, level)
    np.testing.assert_array_equal(result, expected)
    assert (name == "none") == np.array_equal(result, PHOTO)


def test_noise_depends_on_seed_and_id_and_scales_with_the_level() -> None:
    def added(level: float, seed: int, sample_id: str) -> npt.NDArray[np.int_]:
        grey = np.full((64, 64, 3), 128, np.uint8)
        return Degradation("noise", level)(grey, seed, sample_id).astype(int) - 128

    np.testing.assert_array_equal(added(10, 0, "a"), added(10, 0, "a"))
    for other in (added(10, 1, "a"), added(10, 0, "b")):
        assert abs(np.corrcoef(added(10, 0, "a").ravel(), other.ravel())[0, 1]) < 0.05
    assert added(10, 0, "a").std() == pytest.approx(10, rel=0.05)  # not a variance
    assert np.abs(added(20, 0, "a") - 2 * added(10, 0, "a")).max() <= 2  # one pattern


def test_words_of_the_command_line() -> None:
    assert [str(d) for d in expand([])] == ["none"]
    assert [str(d) for d in expand(["weibo", "jpeg:70", "jpeg:90", "jpeg:70.0"])] == [
        "none", "jpeg:90", "jpeg:70", "weibo"
    ]  # fmt: skip
    full, quick = expand(["full"]), expand(["quick"])
    assert len(full) == 29
    assert set(quick) < set(full)
    parts = expand(["jpeg", "blur", "noise", "rescale", "platforms"])
    assert parts == full
    assert [d.level for d in full if d.name == "jpeg"] == [100, 90, 80, 70, 60, 50]
    assert [d.level for d in full if d.name == "noise"] == [3, 7, 11, 15, 19, 23]
    with pytest.raises(UserError, match="fulll"):
        expand(["fulll"])


@pytest.mark.parametrize(
    ("platform", "size", "shown"),
    [
        # As their sources saw them (width, height): see the docstring of the module.
        ("wechat", (3024, 4032), (1440, 1920)),
        ("wechat", (4000, 6000), (1440, 2160)),
        ("weibo", (2560, 300), (2048, 240)),
        ("weibo", (600, 3000), (600, 3000)),
        ("facebook", (600, 4096), (300, 2048)),
        ("whatsapp", (3200, 600), (1600, 300)),
        ("whatsapp", (384, 256), (384, 256)),
    ],
)
def test_networks_shrink_to_their_limit(
    platform: PlatformName, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    height, width = shown[::-1]
    assert upload(np.zeros((*size[::-1], 3), np.uint8), platform).shape == (height, width, 3)


def test_a_small_image_is_only_compressed_as_pillow_does() -> None:
    qualities: dict[PlatformName, int] = {"facebook": 85, "weibo": 80, "wechat": 70, "whatsapp": 75}
    for platform, quality in qualities.items():
        stream = io.BytesIO()
        Image.fromarray(PHOTO).save(stream, "JPEG", quality=quality)
        expected = np.asarray(Image.open(stream).convert("RGB"))
        np.testing.assert_array_equal(upload(PHOTO, platform), expected)


def error(first: ImageArray, second: ImageArray) -> float:
    return float(np.abs(first.astype(int) - second).mean())


def test_lower_quality_loses_more() -> None:
    losses = [error(degrade.jpeg(PHOTO, quality), PHOTO) for quality in (95, 70, 30)]
    assert 0 < losses[0] < losses[1] < losses[2]


def test_blur_agrees_with_pillow() -> None:
    # OpenCV's rule gives a window of 11 pixels a sigma of 2.
    reference = np.asarray(Image.fromarray(PHOTO).filter(ImageFilter.GaussianBlur(2.0)))
    assert error(degrade.blur(PHOTO, 11), reference) < 1.5
    assert error(degrade.blur(PHOTO, 1), PHOTO) == 0


def test_noise_has_the_wanted_deviation_and_is_seeded() -> None:
    image = np.full((100, 100, 3), 128, np.uint8)
    noisy = degrade.noise(image, 5, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(5, rel=0.05)
    assert noisy.mean() == pytest.approx(128, abs=0.2)
    np.testing.assert_array_equal(noisy, degrade.noise(image, 5, np.random.default_rng(0)))
    assert degrade.noise(image * 0 + 255, 30, np.random.default_rng(0)).min() > 100  # no wrap


@pytest.mark.parametrize(("factor", "size"), [(0.5, (20, 30)), (1.5, (60, 90)), (0.001, (1, 1))])
def test_rescale_keeps_the_mean(factor: float, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    scaled = degrade.rescale(image, factor)
    assert scaled.shape == (*size, 3)
    assert scaled.mean() == pytest.approx(image.mean(), abs=2)
