import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from boxpromptiml.io.jpeg import Compression, compression, quality_of

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def quantization(file: io.BytesIO) -> dict[int, list[int]]:
    """As Pillow reads it."""
    with Image.open(file) as image:
        assert isinstance(image, JpegImageFile)
        return image.quantization


def known(path: Path) -> Compression:
    """The compression of a JPEG."""
    found = compression(path)
    assert found is not None
    return found


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_quality_is_what_pillow_was_told(mode: str) -> None:
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.fromarray(NOISE).convert(mode).save(buffer, "JPEG", quality=quality)
        found, standard = quality_of(quantization(buffer))
        assert standard
        assert found == quality


def test_other_tables_get_the_nearest_quality(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG", quality=80)
    tables = {k: list(v) for k, v in quantization(buffer).items()}
    tables[0][0] += 1
    Image.fromarray(NOISE).save(tmp_path / "x.jpg", qtables=tables)
    Image.fromarray(NOISE).save(tmp_path / "y.jpg", quality=80)
    other, usual = known(tmp_path / "x.jpg"), known(tmp_path / "y.jpg")
    assert (other.quality, other.standard) == (80, False)
    assert (usual.quality, usual.standard) == (80, True)
    assert other.tables != usual.tables


def test_tables_that_no_component_uses_do_not_count(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).convert("L").save(buffer, "JPEG", quality=30)
    data = bytearray(buffer.getvalue())
    data[data.index(b"\xff\xdb") + 4] = 2  # the number of the table
    data[data.index(b"\xff\xc0") + 12] = 2  # the number that the component names
    decoy = b"\xff\xdb\0\x43\0" + bytes([1] * 64)  # a table of quality 100
    (tmp_path / "x.jpg").write_bytes(data[:2] + decoy + data[2:])
    assert known(tmp_path / "x.jpg")[:2] == (30, True)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_subsampling(tmp_path: Path, subsampling: str) -> None:
    Image.fromarray(NOISE).save(tmp_path / "x.jpg", subsampling=subsampling)
    assert known(tmp_path / "x.jpg").subsampling == subsampling


def test_grey_other_formats_and_damage(tmp_path: Path) -> None:
    Image.fromarray(NOISE).convert("L").save(tmp_path / "x.jpg")
    Image.fromarray(NOISE).save(tmp_path / "x.png")
    (tmp_path / "bad.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:30])
    assert known(tmp_path / "x.jpg").subsampling == "grey"
    for name in ("x.png", "bad.jpg", "absent.jpg"):
        assert compression(tmp_path / name) is None
