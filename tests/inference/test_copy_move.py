"""inference/copy_move.py: regions copied within an image, found by matching."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.data import astronaut

from boxpromptiml import Localizer
from boxpromptiml.cli import main
from boxpromptiml.inference.copy_move import add_copies, copied_regions
from boxpromptiml.io.map_files import read_map
from boxpromptiml.records import ImageArray, MaskArray

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


def test_localize_adds_copies_if_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, _, _ = forged()
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    plain, added = (Localizer.load(copy_move=on).localize([image])[0] for on in (False, True))
    assert added.score == plain.score
    assert (added.prob >= plain.prob).all()
    page = ["localize", "--images", str(tmp_path / "a.png"), "--out", str(tmp_path / "page")]
    assert main([*page, "--copy_move=true", "--report=true", "--isolate=false"]) == 0
    said = (tmp_path / "page/case.html").read_text()
    assert "Parts that match another place of the same image were added" in said
    words = ["localize", "--images", str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert main([*words, "--copy_move=true", "--isolate=false"]) == 0
    stored = np.asarray(read_map(tmp_path / "out/prob/a.png").prob)
    np.testing.assert_allclose(stored, added.prob, atol=1e-4)
    assert (stored > 0.5).sum() > (plain.prob > 0.5).sum()
    capsys.readouterr()
    assert main([*words, "--copy_move=true", "--fpr=0.01"]) != 0
    assert "without --tile or --copy_move" in capsys.readouterr().err
