"""Metadata, thumbnails and compression of files, here and from the child process."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from skimage import data

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.io.file_details import FileDetails, read_details
from boxpromptiml.io.sandbox import IsolatedDecoder
from boxpromptiml.records import ImageArray

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def jpeg(pixels: ImageArray, quality: int = 90) -> bytes:
    return images.encode_jpeg(pixels, quality)


def exif(thumbnail: bytes, software: bytes = b"Editor 3.1\0", start: int | None = None) -> bytes:
    """An EXIF block with the tag Software, and a thumbnail in its second directory."""
    value = 8 + 2 + 12 + 4  # behind the first directory
    second = value + len(software)
    place = second + 2 + 24 + 4
    first = struct.pack("<HHHIII", 1, 0x0131, 2, len(software), value, second)
    tags = ((0x0201, place if start is None else start), (0x0202, len(thumbnail)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in tags)
    body = struct.pack("<2sHI", b"II", 42, 8) + first + software
    return b"Exif\0\0" + body + struct.pack("<H", 2) + entries + bytes(4) + thumbnail


def saved(path: Path, block: bytes = b"", **more: Any) -> Path:
    Image.fromarray(PIXELS).save(path, exif=block, **more)
    return path


@pytest.fixture(scope="module")
def decoder() -> IsolatedDecoder:
    return IsolatedDecoder()


def test_a_jpeg_with_everything(tmp_path: Path, decoder: IsolatedDecoder) -> None:
    small = jpeg(PIXELS[:16, :16])
    xmp = b'<x:xmpmeta><rdf:Description xmp:CreatorTool="Painter 9"/></x:xmpmeta>'
    path = saved(tmp_path / "a.jpg", exif(small), quality=83, xmp=xmp, icc_profile=b"profile")
    found = read_details(path)
    assert found.length == path.stat().st_size
    assert found.compression is not None
    assert (found.compression.quality, found.compression.standard) == (83, True)
    assert len(found.table) == 64
    assert found.thumbnail == small
    assert dict(found.metadata) == {
        "Software": "Editor 3.1",
        "Software named in XMP": "Painter 9",
        "XMP": "present",
        "Colour profile": "present",
    }
    assert decoder.details(path) == found
    assert FileDetails.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("ending", ["png", "webp", "tif", "bmp"])
def test_other_formats_have_no_compression(
    tmp_path: Path, ending: str, decoder: IsolatedDecoder
) -> None:
    found = read_details(saved(tmp_path / f"a.{ending}"))
    assert (found.compression, found.table, found.earlier_quality) == (None, (), None)
    assert decoder.details(tmp_path / f"a.{ending}") == found


def test_a_position_is_mentioned_and_not_shown(tmp_path: Path) -> None:
    block = Image.Exif()
    block.get_ifd(0x8825)[2] = (52.0, 30.0, 0.0)
    block[0x010F] = "Maker"
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=block)
    found = dict(read_details(tmp_path / "a.jpg").metadata)
    assert found == {"Make": "Maker", "GPS position": "present, not shown here"}


@pytest.mark.parametrize("start", [0, 1, 10**6, 2**32 - 1])
def test_a_thumbnail_that_leads_elsewhere_is_none(tmp_path: Path, start: int) -> None:
    path = saved(tmp_path / "a.jpg", exif(jpeg(PIXELS[:16, :16]), start=start))
    found = read_details(path)
    assert found.thumbnail == b""
    assert ("Software", "Editor 3.1") in found.metadata


def test_values_are_short_lines(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", exif(b"", b"two\nlines\t" + b"x" * 500 + b"\0"))
    value = dict(read_details(path).metadata)["Software"]
    assert value.startswith("two lines xxx")
    assert len(value) == 200


def test_texts_of_a_png_and_the_comment_of_a_jpeg(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", "a street at night")
    texts.add_itxt("prompt", "rain", zip=True)
    saved(tmp_path / "a.png", pnginfo=texts)
    found = dict(read_details(tmp_path / "a.png").metadata)
    assert found == {"parameters": "a street at night", "prompt": "rain"}
    saved(tmp_path / "a.jpg", comment=b"CREATOR: gd-jpeg")
    found = dict(read_details(tmp_path / "a.jpg").metadata)
    assert found == {"Comment of the file": "CREATOR: gd-jpeg"}


def test_many_texts_push_nothing_out(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    for number in range(100):
        texts.add_text(f"key {number}", "x")
    saved(tmp_path / "a.png", pnginfo=texts, icc_profile=b"profile")
    found = read_details(tmp_path / "a.png").metadata
    assert found[59:] == (
        ("key 59", "x"),
        ("Further values", "40, not shown here"),
        ("Colour profile", "present"),
    )


def test_a_table_with_zeros_is_shown_and_tells_of_nothing_earlier(tmp_path: Path) -> None:
    data = bytearray(jpeg(PIXELS))
    start = data.index(b"\xff\xdb") + 5
    data[start : start + 64] = bytes(64)
    (tmp_path / "a.jpg").write_bytes(data)
    found = read_details(tmp_path / "a.jpg")
    assert (found.table, found.earlier_quality) == ((0,) * 64, None)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_metadata_are_a_note(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert dict(read_details(path).metadata).keys() == {"EXIF"}
    with pytest.raises(RejectedInput):
        read_details(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(RejectedInput):
        IsolatedDecoder().details(tmp_path / "text.jpg")


def test_an_earlier_compression_shows_where_it_was_coarser(tmp_path: Path) -> None:
    once = tmp_path / "once.jpg"
    once.write_bytes(jpeg(data.coffee(), 90))
    assert read_details(once).earlier_quality is None
    with Image.open(io.BytesIO(jpeg(data.coffee(), 60))) as picture:
        coarse = np.asarray(picture)
    (tmp_path / "twice.jpg").write_bytes(jpeg(coarse, 90))
    assert read_details(tmp_path / "twice.jpg").earlier_quality == pytest.approx(60, abs=2)
    (tmp_path / "shifted.jpg").write_bytes(jpeg(np.ascontiguousarray(coarse[3:, 5:]), 90))
    assert read_details(tmp_path / "shifted.jpg").earlier_quality is None
    (tmp_path / "finer.jpg").write_bytes(jpeg(coarse, 50))
    assert read_details(tmp_path / "finer.jpg").earlier_quality is None
