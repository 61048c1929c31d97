"""Maps as files: what is written is read back within 0.001 of AUC; what others write is read."""

import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.map_files import encode_map, quantise, read_map
from boxpromptiml.records import MaskArray, ProbArray

LEVELS = np.array([[0, 128, 255]], np.uint8)
PROB = np.array([[0, 0.25, 1], [0.5, 1e-7, 0.999]], np.float32)
SHAPES = {  # of the logits of a map, from noise of standard deviation 1
    "plain": lambda z: 2 * z,
    "low": lambda z: z - 9,
    "very low": lambda z: z - 30,
    "sure": lambda z: 8 * z - 10,
    "narrow": lambda z: 1e-6 * z,
    "high": lambda z: z + 12,
    "outliers": lambda z: np.where(z > 2, 9, z - 18),
}


def sigmoid(logits: npt.NDArray[np.float64]) -> ProbArray:
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def written(prob: ProbArray, path: Path) -> ProbArray:
    path.write_bytes(encode_map(prob))
    return read_map(path).prob


def scene(seed: int = 0, side: int = 96) -> tuple[npt.NDArray[np.float64], MaskArray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(side, side))
    return logits, np.asarray(logits + rng.normal(size=logits.shape) > 1.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_auc_and_f1_of_a_map_are_those_of_its_file(shape: str, tmp_path: Path) -> None:
    logits, truth = scene()
    prob = sigmoid(SHAPES[shape](logits))
    found = written(prob, tmp_path / "map.png")
    before, after = (roc_auc_score(truth.ravel(), p.ravel()) for p in (prob, found))
    assert after == pytest.approx(before, abs=1e-3)
    assert ((prob > 0.5) != (found > 0.5)).mean() < 1e-3
    assert np.abs(found - prob).max() < 0.02


def test_eight_bits_would_not_do() -> None:
    logits, truth = scene()
    prob = sigmoid(SHAPES["low"](logits))
    cut = np.round(255 * prob)
    before, after = (roc_auc_score(truth.ravel(), p.ravel()) for p in (prob, cut))
    assert abs(before - after) > 0.1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.sampled_from(sorted(SHAPES)), st.sampled_from([0, 0.3, 0.9]))
def test_order_is_kept_and_ties_stay_ties(seed: int, shape: str, tied: float) -> None:
    logits, _ = scene(seed, 40)
    prob = sigmoid(SHAPES[shape](logits))
    prob[np.random.default_rng(seed).random(prob.shape) < tied] = prob[0, 0]
    found = quantise(prob).prob
    order = np.argsort(prob, axis=None, kind="stable")
    assert (np.diff(found.ravel()[order]) >= 0).all()
    assert len(np.unique(found[prob == prob[0, 0]])) == 1
    if tied:  # what many pixels share is told from all others
        assert (found == found[0, 0]).sum() - (prob == prob[0, 0]).sum() <= 2e-3 * prob.size + 1


def test_common_maps_are_plain_sixteen_bit_pictures(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    for prob in (
        LEVELS[0] / np.float32(255) * np.ones((2, 1), np.float32),
        np.zeros((3, 4), np.float32),
        np.ones((3, 4), np.float32),
    ):
        np.testing.assert_allclose(written(prob, path), prob, atol=1 / 65535)
        picture: Any = Image.open(path)
        assert (picture.mode, picture.private_chunks) == ("I;16", [])
    half = written(np.full((2, 2), 0.5, np.float32), path)
    assert not (half > 0.5).any()
    assert read_map(path).levels[0, 0] == 32767


def test_grey_pictures_mean_their_largest_level(tmp_path: Path) -> None:
    for name, array in (
        ("grey.png", LEVELS),
        ("colour.png", np.repeat(LEVELS[..., None], 3, axis=2)),
        ("grey.tif", LEVELS),
        ("deep.png", LEVELS * np.uint16(257)),
        ("deep.tif", LEVELS * np.uint16(257)),
        ("float.tiff", (LEVELS / 255).astype(np.float32)),
    ):
        Image.fromarray(array).save(tmp_path / name)
        found = read_map(tmp_path / name)
        np.testing.assert_allclose(found.prob, LEVELS / 255, atol=1e-5, err_msg=name)
    assert len(read_map(tmp_path / "grey.png").values) == 256
    assert len(read_map(tmp_path / "deep.png").values) == 65536


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_arrays_are_probabilities_or_levels(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", PROB.astype(dtype))
    np.save(tmp_path / "b.npy", np.asfortranarray(PROB[None, :, :, None].astype(dtype)))
    np.savez_compressed(tmp_path / "c.npz", conf=np.zeros((9, 9)), map=PROB.astype(dtype))
    np.savez(tmp_path / "d.npz", PROB.astype(dtype))
    for name in ("a.npy", "b.npy", "c.npz", "d.npz"):
        np.testing.assert_allclose(read_map(tmp_path / name).prob, PROB, atol=1e-3)
    np.save(tmp_path / "e.npy", LEVELS)
    np.testing.assert_array_equal(read_map(tmp_path / "e.npy").levels, LEVELS)
    np.save(tmp_path / "f.npy", LEVELS > 0)
    np.testing.assert_array_equal(read_map(tmp_path / "f.npy").prob, LEVELS > 0)


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def zipped_by_bzip2() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("map.npy", bytes(2**20))
    return buffer.getvalue()


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


HEADER = "{{'descr': '{}', 'fortran_order': False, 'shape': {}}}"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.npy", b"", "holds no map"),
        ("a.npy", npy(HEADER.format("|O", "(2, 2)"), b"x" * 32), "numbers of type object"),
        ("a.npy", npy(HEADER.format("<f4", "(60000, 60000)"), b"x" * 16), "16 bytes are not"),
        ("a.npy", npy(HEADER.format("<f4", "(-1, -4)"), b"x" * 16), "16 bytes are not"),
        ("a.npy", npy(HEADER.format("<c8", "(1, 2)"), b"x" * 16), "numbers of type complex64"),
        ("a.npy", npy("[" * 100), "holds no map"),
        ("a.npz", b"PK", "not a zip file"),
        ("a.npz", zipped(conf=b"", score=b""), "no array named map among conf, score"),
        ("a.npz", zipped(map=b"x"), "holds no map"),
        ("a.npz", zipped_by_bzip2(), "compressed otherwise"),
    ],
)
def test_hostile_arrays_are_refused_before_anything_is_built(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RejectedInput, match=said):
        read_map(tmp_path / name)


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        npy(HEADER.format("<f4", "(2, 2)")),
        b"\x93NUMPY\x02\x00" + (2**26).to_bytes(4, "little"),
    ],
    ids=["no magic", "other size", "long header"],
)
def test_an_archive_is_unpacked_only_for_a_map(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(zipped(map=begin + bytes(2**26)))
    tracemalloc.start()
    try:
        with pytest.raises(RejectedInput, match="holds no map"):
            read_map(tmp_path / "a.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan, np.inf])
def test_what_is_no_probability_is_refused(tmp_path: Path, value: float) -> None:
    prob = PROB.copy()
    prob[0, 0] = value
    np.save(tmp_path / "a.npy", prob)
    Image.fromarray(prob).save(tmp_path / "a.tif")
    for name in ("a.npy", "a.tif"):
        with pytest.raises(RejectedInput, match="outside"):
            read_map(tmp_path / name)
    np.save(tmp_path / "b.npy", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(RejectedInput, match="2 x 3 x 4 numbers"):
        read_map(tmp_path / "b.npy")


def test_pictures_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    images.write_png(tmp_path / "heat.png", np.stack([LEVELS, LEVELS, 255 - LEVELS], axis=2))
    images.write_jpeg(tmp_path / "jpeg.png", LEVELS, 90)
    (tmp_path / "broken.png").write_bytes(images.encode_png(LEVELS)[:45])
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {"heat": "mask_colour", "jpeg": "unsupported_mode", "pipe": "not_a_file"}
    for name, reason in (reasons | {"broken": "truncated_or_corrupt"}).items():
        with pytest.raises(RejectedInput) as error:
            read_map(tmp_path / f"{name}.png")
        assert (error.value.reason, error.value.path) == (reason, str(tmp_path / f"{name}.png"))
    for name in ("pipe.npy", "pipe.npz"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match="not a regular file"):
            read_map(tmp_path / name)


def test_other_programs_see_the_plain_levels_of_a_map_with_a_finer_scale(tmp_path: Path) -> None:
    prob = sigmoid(1e-3 * scene()[0])
    np.testing.assert_allclose(written(prob, tmp_path / "map.png"), prob, atol=1e-5)
    picture: Any = Image.open(tmp_path / "map.png")
    assert [chunk[0] for chunk in picture.private_chunks] == [b"bpSC"]
    plain = np.asarray(Image.open(tmp_path / "map.png"))
    np.testing.assert_allclose(plain / 65535, prob, atol=1 / 65535)


def scale(count: int, *knots: float, levels: npt.NDArray[np.generic] = LEVELS) -> bytes:
    body = images.encode_png(levels.astype(np.uint16))
    return struct.pack(f"<H{len(knots)}f", count, *knots) + body


@pytest.mark.parametrize(
    ("chunk", "said"),
    [
        (b"", "unpack"),
        (b"\xff\xff", "buffer"),
        (scale(1, 0.5), "not rising"),
        (scale(2, 0.5, 0.5), "not rising"),
        (scale(2, -0.1, 0.5), "not rising"),
        (scale(2, 0.5, np.nan), "not rising"),
        (scale(2, 0.5, 1.5), "not rising"),
        (scale(2, 0.1, 0.9, levels=LEVELS.T), "not of the map's size"),
        (scale(2, 0.1, 0.9)[:-24], "truncated|cannot be read"),
    ],
)
def test_a_damaged_scale_is_refused(tmp_path: Path, chunk: bytes, said: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(images.encode_png(LEVELS.astype(np.uint16), (b"bpSC", chunk)))
    with pytest.raises(RejectedInput, match=f"damaged scale.*({said})"):
        read_map(path)
    path.write_bytes(images.encode_png(LEVELS.astype(np.uint16), (b"bpSC", scale(2, 0.1, 0.9))))
    np.testing.assert_allclose(read_map(path).prob[0, 0], 0.1)
