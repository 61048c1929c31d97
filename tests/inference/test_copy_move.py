"""inference/copy_move.py: regions copied within an image, found by matching."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import logit
from skimage.data import astronaut

from boxpromptiml import Localizer
from boxpromptiml.cli import main
from boxpromptiml.inference.copy_move import add_copies, copied_regions
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.predictions import read_rows
from boxpromptiml.io.map_files import read_map
from boxpromptiml.records import ImageArray, MaskArray
from tests.helpers.models import CALIBRATION, SPECS, make_network

SOURCE, COPY = np.s_[20:120, 180:280], np.s_[180:280, 20:120]


def forged(turned: bool = False) -> tuple[ImageArray, MaskArray, MaskArray]:
    """A photograph with a face copied to another place; masks of the source and of the copy."""
    image = astronaut()[:300, :300].copy()
    face = image[SOURCE]
    image[COPY] = cv2.rotate(face, cv2.ROTATE_90_CLOCKWISE) if turned else face
    source, copy = np.zeros((2, 300, 300), bool)
    source[SOURCE], copy[COPY] = True, True
    return image, source, copy


@pytest.mark.parametrize("turned", [False, True])
def test_a_copy_and_its_source_match_and_nothing_else(turned: bool) -> None:
    image, source, copy = forged(turned)
    found = copied_regions(image) > 0.65
    assert found[source].mean() > 0.8
    assert found[copy].mean() > 0.8
    assert found[~source & ~copy].mean() < 0.03
    assert not copied_regions(astronaut()[:300, :300]).any()


def test_the_network_chooses_between_copy_and_source() -> None:
    image, source, copy = forged()
    prob = np.full(image.shape[:2], 0.05, np.float32)
    prob[copy] = 0.2
    fused = add_copies(prob, image)
    assert (fused[copy] > 0.65).mean() > 0.8
    assert (fused[source] > 0.5).mean() < 0.03
    both = add_copies(np.full_like(prob, 0.1), image)  # a network that cannot tell them apart
    assert (both[source | copy] > 0.65).mean() > 0.8


def test_a_large_image_is_matched_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxpromptiml.inference.copy_move._MAX_SIDE", 300)
    image, source, copy = forged()
    large = cv2.resize(image, (900, 900), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    assert copied_regions(large).shape == (300, 300)
    fused = add_copies(np.zeros((900, 900), np.float32), large)
    there = cv2.resize((source | copy).astype(np.uint8), (900, 900)) > 0
    assert fused.shape == there.shape
    assert (fused[there] > 0.65).mean() > 0.8


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1)])
def test_a_very_narrow_image_has_a_map(size: tuple[int, int]) -> None:
    prob = np.full(size, 0.5, np.float32)
    np.testing.assert_array_equal(add_copies(prob, np.zeros((*size, 3), np.uint8)), prob)


def test_no_more_keypoints_are_matched_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    matched: list[int] = []
    matcher = cv2.BFMatcher(cv2.NORM_L2)

    class Counting:
        """Counts what it is asked to match."""

        def __init__(self, _: int) -> None: ...

        def knnMatch(self, one: ImageArray, other: ImageArray, k: int) -> object:  # noqa: N802
            matched.append(len(one))
            return matcher.knnMatch(one, other, k=k)

    monkeypatch.setattr(cv2, "BFMatcher", Counting)
    monkeypatch.setattr("boxpromptiml.inference.copy_move._MAX_KEYPOINTS", 100)
    tile = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    copied_regions(np.tile(tile, (32, 32, 1)))  # every tile has keypoints of the same strength
    assert matched == [100]


@settings(max_examples=25)
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    st.floats(0, 1, width=32),
)
def test_any_image_has_a_map_not_below_the_network_s(image: ImageArray, value: float) -> None:
    prob = np.full(image.shape[:2], value, np.float32)
    fused = add_copies(prob, image)
    assert fused.shape == prob.shape
    assert fused.dtype == np.float32
    assert (fused >= prob).all()
    assert fused.max() <= 1


@pytest.fixture(scope="module")
def weighing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that looks for copies by default, calibrated with them."""
    path = tmp_path_factory.mktemp("weighing") / "student.safetensors"
    calibration = replace(CALIBRATION, copy_weight=1.5)
    spec = replace(SPECS["student"], calibration=calibration, copy_move=True)
    write_safetensors(path, make_network(spec), spec.to_dict())
    return path


def test_the_file_says_whether_copies_are_added_unless_one_asks(weighing: Path) -> None:
    image, _, _ = forged()
    found, off = (
        Localizer.load(weighing, copy_move=on).localize([image])[0] for on in (None, False)
    )
    assert found.copied
    assert not off.copied
    assert (found.prob >= off.prob).all()
    assert (found.prob > 0.65).sum() > (off.prob > 0.65).sum()
    plain = Localizer.load(copy_move=False)
    forced = Localizer.load(copy_move=True)
    np.testing.assert_array_equal(forced(image), add_copies(plain(image), image))


def test_a_copied_patch_raises_the_probability(weighing: Path) -> None:
    image, _, _ = forged()
    localizer = Localizer.load(weighing)
    known = localizer.spec.calibration
    assert known is not None
    without = replace(localizer.spec, calibration=replace(known, copy_weight=None))
    found, plain = (
        replace(localizer, spec=s).localize([image])[0] for s in (localizer.spec, without)
    )
    assert logit(found.score) - logit(plain.score) == pytest.approx(1.5, abs=1e-3)
    untouched = astronaut()[:300, :300]
    found, plain = (
        replace(localizer, spec=s).localize([untouched])[0] for s in (localizer.spec, without)
    )
    assert not found.copied
    assert found.score == plain.score


def localized(tmp_path: Path, *options: str) -> tuple[int, Path]:
    """Exit status and folder of `localize` on an image with a copy."""
    cv2.imwrite(str(tmp_path / "a.png"), forged()[0][..., ::-1])
    out = tmp_path / "out"
    words = ["localize", f"--images={tmp_path / 'a.png'}", f"--out={out}", "--isolate=false"]
    return main([*words, *options]), out


def test_localize_follows_the_file(weighing: Path, tmp_path: Path) -> None:
    status, out = localized(tmp_path, f"--checkpoint={weighing}", "--fpr=0.1", "--report=true")
    assert status == 0
    (row,) = read_rows(out).values()
    assert (row.calibrated, row.fpr, row.image_threshold) == (True, 0.1, 0.7)
    expected = Localizer.load(weighing).localize([forged()[0]])[0]
    np.testing.assert_allclose(read_map(out / "prob/a.png").prob, expected.prob, atol=0.01)
    assert row.image_score == pytest.approx(expected.score, abs=1e-6)
    page = (out / "case.html").read_text()
    assert "Parts that match another place of the same image were added" in page
    assert "the probability does not know of them" not in page
    status, _ = localized(tmp_path, f"--checkpoint={weighing}", "--copy_move=false")
    assert status == 0
    (other,) = read_rows(out).values()
    assert (other.calibrated, other.fpr) == (False, None)
    assert other.made_by != row.made_by  # another map: it was localized again


def test_rates_measured_with_copies_hold_only_with_them(
    weighing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"--checkpoint={weighing}", "--fpr=0.1", "--copy_move=false")
    assert localized(tmp_path, *words)[0] == 1
    assert "knows no false-alarm rates for such maps" in capsys.readouterr().err
    spec = replace(SPECS["student"], calibration=CALIBRATION)
    write_safetensors(tmp_path / "plain.safetensors", make_network(spec), spec.to_dict())
    plain = f"--checkpoint={tmp_path / 'plain.safetensors'}"
    assert localized(tmp_path, plain, "--fpr=0.1", "--copy_move=true")[0] == 1
    assert "with or without copies as it says" in capsys.readouterr().err
    status, out = localized(tmp_path, plain, "--copy_move=true", "--report=true")
    assert status == 0
    (row,) = read_rows(out).values()
    assert (row.calibrated, row.fpr) == (True, None)
    assert "the probability does not know of them" in (out / "case.html").read_text()
