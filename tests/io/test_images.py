import contextlib
import errno
import hashlib
import io
import os
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.io.images import (
    Limits,
    decode_image,
    probe,
    read_image,
    read_mask,
    read_trimap,
)

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
DISC = (np.hypot(*(np.indices((64, 64)) - 30)) < 20).astype(np.uint8) * 255


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def picture_bytes(kind: str, size: tuple[int, int] = (24, 16), **options: Any) -> bytes:
    ramp = np.indices((size[1], size[0])).sum(0)
    pixels = np.stack([ramp * 5, 255 - ramp * 3, ramp * 2], axis=-1).astype(np.uint8)
    return encoded(Image.fromarray(pixels), kind, **options)


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png_header(width: int, height: int, *, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)


def tiff(pixels: npt.NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def reason(call: Callable[..., object], *arguments: Any, **options: Any) -> str:
    with pytest.raises(RejectedInput) as caught:
        call(*arguments, **options)
    assert caught.value.message
    return caught.value.reason


def saved(folder: Path, data: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# --- what is read


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_files_come_back_exactly(tmp_path: Path, kind: str) -> None:
    data = encoded(Image.fromarray(NOISE), kind)
    pixels, info = read_image(saved(tmp_path, data))
    assert np.array_equal(pixels, NOISE)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    expected = images.ImageInfo(kind, "RGB", (5, 7), 1, hashlib.sha256(data).hexdigest(), ())
    assert info == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_probe_tells_what_read_tells(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, picture_bytes(kind))
    assert probe(path) == read_image(path)[1]
    assert probe(str(path)).size == (16, 24)


def test_probe_decodes_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [saved(tmp_path, picture_bytes(kind), kind) for kind in FORMATS]
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert [probe(path).format for path in paths] == list(FORMATS)


def test_lossy_files_are_close() -> None:
    for kind in ("JPEG", "WEBP"):
        exact, _ = decode_image(picture_bytes("PNG"), "x")
        lossy, _ = decode_image(picture_bytes(kind, quality=95), "x")
        assert np.abs(exact.astype(int) - lossy).mean() < 5


BLACK_WHITE = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
GREY = np.array([[0, 77, 255]], np.uint8)
GREY_16 = np.array([[0, 255, 256, 0x7BFF, 0xFFFF]], np.uint16)
COLOURED = Image.new("P", (2, 1))
COLOURED.putpalette([10, 20, 30, 200, 100, 50])
COLOURED.putpixel((1, 0), 1)
CLEAR = np.array([[[9, 8, 7, 0], [200, 100, 50, 128]]], np.uint8)
GREY_CLEAR = Image.fromarray(np.array([[[9, 0], [200, 128]]], np.uint8), "LA")
CMYK = Image.fromarray(np.array([[[0, 0, 0, 0], [255, 0, 51, 0]]], np.uint8), "CMYK")
TWO_COLOURS = [[[10, 20, 30], [200, 100, 50]]]


def tripled(values: Any) -> Any:
    return [[[value] * 3 for value in values]]


@pytest.mark.parametrize(
    ("data", "mode", "rgb", "note"),
    [
        (encoded(BLACK_WHITE, "PNG"), "1", tripled([0, 255]), None),
        (encoded(BLACK_WHITE, "TIFF"), "1", tripled([0, 255]), None),
        (encoded(Image.fromarray(GREY), "BMP"), "L", tripled([0, 77, 255]), None),
        (tiff(GREY, photometric="miniswhite"), "L", tripled([255, 178, 0]), None),
        (encoded(GREY_CLEAR, "PNG"), "LA", tripled([9, 200]), "alpha dropped"),
        (encoded(COLOURED, "PNG"), "P", TWO_COLOURS, None),
        (encoded(COLOURED, "TIFF"), "P", TWO_COLOURS, None),
        (encoded(COLOURED, "PNG", transparency=1), "P", TWO_COLOURS, "alpha dropped"),
        (encoded(COLOURED, "PNG", transparency=b"\0\x80"), "P", TWO_COLOURS, "alpha dropped"),
        (encoded(Image.fromarray(CLEAR), "PNG"), "RGBA", CLEAR[..., :3], "alpha dropped"),
        (encoded(Image.fromarray(CLEAR), "TIFF"), "RGBA", CLEAR[..., :3], "alpha dropped"),
        (
            encoded(Image.fromarray(CLEAR), "WEBP", lossless=True, exact=True),
            "RGBA",
            CLEAR[..., :3],
            "alpha dropped",
        ),
        (
            encoded(CMYK, "TIFF"),
            "CMYK",
            [[[255, 255, 255], [0, 255, 204]]],
            "CMYK converted without its profile",
        ),
        (
            encoded(Image.fromarray(GREY_16), "PNG"),
            "I;16",
            tripled([0, 0, 1, 0x7B, 255]),
            "16-bit scaled to 8",
        ),
        (tiff(GREY_16), "I;16", tripled([0, 0, 1, 0x7B, 255]), "16-bit scaled to 8"),
        (
            tiff(GREY_16, byteorder=">"),
            "I;16B",
            tripled([0, 0, 1, 0x7B, 255]),
            "16-bit scaled to 8",
        ),
        (
            tiff(np.array([[[1, 0x1FF, 0xFFFF]]], np.uint16), photometric="rgb"),
            "RGB",
            [[[0, 1, 255]]],
            "16-bit scaled to 8",
        ),
        (
            png_header(1, 1, depth=16)
            + chunk(b"IDAT", zlib.compress(b"\0\x01\xff\x7b\0\xff\xff"))
            + chunk(b"IEND", b""),
            "RGB",
            [[[1, 0x7B, 255]]],
            "16-bit scaled to 8",
        ),
    ],
)
def test_golden_pixels_of_every_mode(
    data: bytes, mode: str, rgb: list[Any] | npt.NDArray[np.uint8], note: str | None
) -> None:
    pixels, info = decode_image(data, "x")
    assert pixels.tolist() == np.asarray(rgb).tolist()
    assert info.mode == mode
    assert info.notes == ((note,) if note else ())


TIFF_LAYOUTS = [
    {},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"tile": (16, 16)},
    {"planarconfig": "separate"},
    {"planarconfig": "separate", "tile": (16, 16)},
    {"extrasamples": ["unspecified"]},
    {"extrasamples": ["unassalpha"]},
]


@pytest.mark.parametrize("layout", TIFF_LAYOUTS)
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiffs_of_tifffile(
    layout: dict[str, Any], compression: str | None, dtype: type[Any]
) -> None:
    separate, strips = "planarconfig" in layout, {} if "tile" in layout else {"rowsperstrip": 4}
    if separate and dtype == np.uint16:
        return  # rejected, see below
    array = RNG.integers(0, np.iinfo(dtype).max, (40, 48, 3), dtype=dtype, endpoint=True)
    more = np.dstack([array, array[..., :1]]) if "extrasamples" in layout else array
    data = tiff(
        more.transpose(2, 0, 1) if separate else more,
        photometric="rgb",
        compression=compression,
        **layout,
        **strips,
    )
    shift = 8 if dtype == np.uint16 else 0
    assert np.array_equal(decode_image(data, "x")[0], array >> shift)
    assert np.array_equal(
        tifffile.imread(io.BytesIO(data)), more.transpose(2, 0, 1) if separate else more
    )


@pytest.mark.parametrize(
    "layout",
    [
        {"rowsperstrip": 4},
        {"tile": (16, 16)},
        {"rowsperstrip": 4, "planarconfig": "separate"},
        {"rowsperstrip": 4, "compression": "deflate"},
    ],
)
def test_tiff_with_missing_strips(layout: dict[str, Any]) -> None:
    array = np.full((40, 48, 3), 9, np.uint8)
    separate = "planarconfig" in layout
    data = tiff(array.transpose(2, 0, 1) if separate else array, photometric="rgb", **layout)
    assert (decode_image(data, "x")[0] == 9).all()
    cut = bytearray(data)
    for tag in (273, 279, 324, 325):  # offsets and byte counts of strips, of tiles
        entry = re.search(re.escape(struct.pack("<H", tag)) + rb"[\x03\x04]\0", data)
        if entry:
            count = struct.unpack_from("<I", data, entry.start() + 4)[0]
            struct.pack_into("<I", cut, entry.start() + 4, count // 2)
    assert reason(decode_image, bytes(cut), "x") == "truncated_or_corrupt"


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiffs_of_pillow(compression: str) -> None:
    data = encoded(Image.fromarray(NOISE), "TIFF", compression=compression)
    assert np.array_equal(decode_image(data, "x")[0], NOISE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_recorded_and_not_applied(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    plain, oriented = picture_bytes(kind), picture_bytes(kind, exif=exif)
    # The file does ask viewers to turn it, else this test would prove nothing.
    display = ImageOps.exif_transpose(Image.open(io.BytesIO(oriented)))
    stored, _ = decode_image(plain, "x")
    assert np.array_equal(np.asarray(display), stored) == (orientation == 1)
    pixels, info = decode_image(oriented, "x")
    assert np.array_equal(pixels, stored)
    assert (info.size, info.orientation) == ((16, 24), orientation)
    assert info.notes == ((f"orientation {orientation} not applied",) * (orientation > 1))
    assert probe(saved(tmp_path, oriented)) == info


@pytest.mark.parametrize("orientation", range(2, 9))
def test_compressed_oriented_tiff_keeps_stored_order(orientation: int) -> None:
    data = encoded(
        Image.fromarray(NOISE), "TIFF", compression="tiff_lzw", tiffinfo={274: orientation}
    )
    pixels, info = decode_image(data, "x")
    assert np.array_equal(pixels, NOISE)
    assert info.orientation == orientation


def test_a_pillow_that_stops_turning_tiffs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(NOISE), "TIFF", tiffinfo={274: 6})
    monkeypatch.setattr(ImageOps, "exif_transpose", lambda *_, **__: None)
    assert reason(decode_image, data, "x") == "truncated_or_corrupt"


def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = picture_bytes("PNG")
    late = data[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[-12:]
    assert decode_image(late, "x")[1].orientation == 6
    assert probe(saved(tmp_path, late)).orientation == 6


NINE = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("kind", "exif", "note"),
    [
        ("PNG", b"Exif\0\0garbage!", "unreadable EXIF"),
        ("WEBP", b"Exif\0\0garbage!", "unreadable EXIF"),
        ("JPEG", NINE, "invalid EXIF orientation read as 1"),
        ("PNG", NINE, "invalid EXIF orientation read as 1"),
    ],
)
def test_bad_exif_is_noted_and_harmless(kind: str, exif: bytes, note: str) -> None:
    pixels, info = decode_image(picture_bytes(kind, exif=exif), "x")
    assert np.array_equal(pixels, decode_image(picture_bytes(kind), "x")[0])
    assert (info.orientation, info.notes) == (1, (note,))


def test_extension_that_lies_is_noted() -> None:
    data = picture_bytes("JPEG")
    assert decode_image(data, "a/b.PNG")[1].notes == ("extension .png but JPEG",)
    assert decode_image(data, "a/b.gif")[1].notes == ("extension .gif but JPEG",)
    for name in ("b.JPG", "b.jpeg", "b"):
        assert decode_image(data, name)[1].notes == ()


def test_first_picture_of_a_camera_mpo() -> None:
    first, second = (Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (200, 20))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    pixels, info = decode_image(data, "photo.jpg")
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert (info.format, info.notes) == ("JPEG", ("first picture of an MPO",))
    assert (pixels == 200).all()


ODD_NAMES = [
    os.fsdecode(b"\xff\xfe.png"),
    "new\nline.png",
    "é.png",
    "e\u0301.png",
    "\u202egnp.png",
    "x" * 251 + ".png",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_work(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    images.write_png(tmp_path / "plain.png", NOISE)
    os.rename(tmp_path / "plain.png", path)  # noqa: PTH104
    pixels, info = read_image(path)
    assert np.array_equal(pixels, NOISE)
    assert info.notes == ()
    path.write_bytes(b"GIF")
    assert reason(read_image, path) == "unknown_format"


def test_threads_share_the_decoder() -> None:
    data = {kind: picture_bytes(kind) for kind in FORMATS}
    expected = {kind: decode_image(data[kind], "x")[0] for kind in FORMATS}
    wrong = []

    def work() -> None:
        for kind in FORMATS * 10:
            same = np.array_equal(decode_image(data[kind], "x")[0], expected[kind])
            wrong.extend([] if same else [kind])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- what is rejected


def test_things_that_are_no_files(tmp_path: Path) -> None:
    good = saved(tmp_path, picture_bytes("PNG"))
    (tmp_path / "link").symlink_to(good)
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for path in ("link", "fifo", "socket", ".", "/dev/zero", "/dev/null"):
            start = time.monotonic()
            assert reason(read_image, tmp_path / path) == "not_a_file"
            assert time.monotonic() - start < 1
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_files_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = saved(tmp_path, picture_bytes("PNG"))
    assert reason(read_image, tmp_path / "none.png") == "missing"
    assert reason(read_image, good / "below.png") == "missing"
    assert reason(read_image, tmp_path / ("x" * 300)) == "unreadable"
    reason(read_image, "nul\0.png")
    for number, expected in ((errno.EACCES, "permission"), (errno.EIO, "unreadable")):

        def refuse(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            assert reason(read_image, good) == expected


def test_size_limits(tmp_path: Path) -> None:
    data = picture_bytes("PNG")
    path = saved(tmp_path, data)
    exact = Limits(max_bytes=len(data), max_pixels=24 * 16, max_side=24)
    assert read_image(path, exact)[1].size == (16, 24)
    for limits, expected in (
        (Limits(max_bytes=len(data) - 1), "too_many_bytes"),
        (Limits(max_pixels=24 * 16 - 1), "too_many_pixels"),
        (Limits(max_side=23), "side_too_long"),
    ):
        for call in (read_image, probe, read_trimap):
            assert reason(call, path, limits) == expected
        assert reason(decode_image, data, "x", limits) == expected
        assert reason(read_mask, path, limits=limits) == expected
    assert reason(read_image, saved(tmp_path, b"", "empty.png")) == "empty"
    assert reason(decode_image, b"", "x") == "empty"


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (60_000, 60_000, "too_many_pixels"),  # twice Pillow's limit: its error
        (13_000, 13_000, "too_many_pixels"),  # between: its mere warning
        (70_000, 1, "side_too_long"),
        (0, 5, None),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_rejected_by_their_header(width: int, height: int, expected: str | None) -> None:
    data = png_header(width, height) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    start = time.monotonic()
    assert reason(decode_image, data, "x") in (expected, "truncated_or_corrupt", "unknown_format")
    if expected:
        assert reason(decode_image, data, "x") == expected
    assert time.monotonic() - start < 0.5


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_jpeg_of_hundreds_of_scans_is_rejected_by_its_header() -> None:
    """In a few bytes each scan costs a pass over all pixels."""
    sound = encoded(Image.fromarray(NOISE), "JPEG", progressive=True)
    assert np.array_equal(decode_image(sound, "x")[0], np.asarray(Image.open(io.BytesIO(sound))))
    scan = sound.rindex(b"\xff\xda")
    last = sound[scan:-2]
    for repeated, expected in ((80, None), (120, "too_many_scans")):
        data = sound[:-2] + last * repeated + b"\xff\xd9"
        if expected:
            assert reason(decode_image, data, "x") == expected
        else:
            assert decode_image(data, "x")[1].format == "JPEG"
    baseline = encoded(Image.fromarray(NOISE), "JPEG", comment=b"\xff\xda\0\x08\1" * 200)
    assert decode_image(baseline, "x")[1].format == "JPEG"


def test_bomb_warning_made_an_error_is_a_rejection() -> None:
    data = png_header(13_000, 13_000) + chunk(b"IDAT", b"")
    assert reason(decode_image, data, "x") == "too_many_pixels"


def test_pillows_own_limit_holds_above_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    data = picture_bytes("PNG")
    with pytest.warns(Image.DecompressionBombWarning):
        assert reason(decode_image, data, "x", Limits(max_pixels=10**12)) == "too_many_pixels"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode_image(data, "x")[1].size == (16, 24)


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(NOISE), "GIF"),
        encoded(Image.fromarray(NOISE), "PPM"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"plain text",
        bytes(100),
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_unknown_formats(data: bytes) -> None:
    assert reason(decode_image, data, "x.png") == "unknown_format"


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("missing", [1, 10, 0.4])
def test_truncation_is_rejected(kind: str, missing: float) -> None:
    data = picture_bytes(kind, size=(64, 64))
    if kind == "PNG":
        data = data[:-30]  # checksums and the end chunk, whose loss hurts no pixel
    keep = len(data) - int(missing) if missing >= 1 else int(len(data) * missing)
    assert reason(decode_image, data[:keep], "x") in ("truncated_or_corrupt", "unknown_format")


def test_damaged_png_is_rejected(tmp_path: Path) -> None:
    data = bytearray(picture_bytes("PNG", size=(64, 64)))
    data[data.find(b"IDAT") + 20] ^= 1
    assert reason(decode_image, bytes(data), "x") == "truncated_or_corrupt"
    no_pixels = png_header(4, 4) + chunk(b"IEND", b"")
    assert reason(decode_image, no_pixels, "x") == "truncated_or_corrupt"
    assert probe(saved(tmp_path, no_pixels)).size == (4, 4)


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_several_frames_are_rejected(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert reason(decode_image, data, "x") == "multi_frame"
    assert reason(probe, saved(tmp_path, data)) == "multi_frame"


@pytest.mark.parametrize(
    "data",
    [
        tiff(np.ones((4, 4), np.float32)),
        tiff(np.ones((4, 4), np.int32)),
        tiff(np.ones((4, 4), np.uint32)),
        tiff(np.ones((4, 4), np.int16)),
        tiff(np.ones((4, 4), np.int8)),
        tiff(np.ones((4, 4), np.uint16), photometric="miniswhite"),
        tiff(np.ones((3, 4, 4), np.uint16), photometric="rgb", planarconfig="separate"),
        encoded(Image.fromarray(NOISE).convert("LAB"), "TIFF"),
        encoded(Image.fromarray(NOISE).convert("YCbCr"), "TIFF"),
    ],
)
def test_modes_without_a_way_to_rgb(data: bytes) -> None:
    assert reason(decode_image, data, "x") == "unsupported_mode"


def test_twelve_bits_are_not_sixteen() -> None:
    data = bytearray(tiff(np.ones((2, 2), np.uint16)))
    bits = data.find(struct.pack("<HHI", 258, 3, 1))
    struct.pack_into("<H", data, bits + 8, 12)
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    assert reason(decode_image, bytes(data), "x") == "unsupported_mode"


def test_memory_errors_are_rejections(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    assert reason(decode_image, picture_bytes("PNG"), "x") == "out_of_memory"


def test_a_process_that_tolerates_truncation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RejectedInput, match="LOAD_TRUNCATED_IMAGES"):
        decode_image(picture_bytes("JPEG"), "x")


SMALL = {
    kind: [
        picture_bytes(kind, size=(9, 6)),
        picture_bytes(kind, size=(9, 6), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    ]
    for kind in FORMATS
}
SMALL["TIFF"] += [picture_bytes("TIFF", compression="tiff_lzw", tiffinfo={274: 6})]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutants_give_pixels_or_rejections(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    content = bytearray(data.draw(st.sampled_from(SMALL[kind])))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = (
        content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    )
    path = saved(tmp_path_factory.getbasetemp(), bytes(content), f"mutant.{kind}")
    limits = Limits(max_pixels=10**6)
    try:
        pixels, info = read_image(path, limits)
    except RejectedInput:
        pass
    else:
        assert pixels.shape == (*info.size, 3)
        assert probe(path, limits) == info
    for call in (lambda: read_mask(path, limits=limits), lambda: read_mask(path, 127, limits)):
        with contextlib.suppress(RejectedInput):
            assert call().dtype == bool


# --- masks


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_two_clean_levels_need_no_threshold(tmp_path: Path, mode: str, high: int) -> None:
    truth = RNG.random((6, 9)) < 0.4
    grey = Image.fromarray(np.where(truth, high, 0).astype(np.uint8))
    path = saved(tmp_path, encoded(grey.convert(mode), "PNG"))
    mask = read_mask(path)
    assert mask.dtype == bool
    assert np.array_equal(mask, truth)


def test_one_bit_and_uniform_masks(tmp_path: Path) -> None:
    truth = RNG.random((6, 9)) < 0.4
    bits = encoded(Image.fromarray(truth), "TIFF", compression="group4")
    assert np.array_equal(read_mask(saved(tmp_path, bits)), truth)
    for value, expected in ((0, False), (1, True), (255, True)):
        flat = Image.fromarray(np.full((3, 3), value, np.uint8))
        assert (read_mask(saved(tmp_path, encoded(flat, "PNG"))) == expected).all()


@pytest.mark.parametrize(
    "values", [[0, 127, 255], [0, 254], [1, 255], [0, 1, 255], [7], [0, 128], list(range(256))]
)
def test_other_levels_need_a_threshold(tmp_path: Path, values: list[int]) -> None:
    grey = np.array([values], np.uint8)
    path = saved(tmp_path, images.encode_png(grey))
    with pytest.raises(RejectedInput, match=f"{len(values)} grey levels.*threshold") as caught:
        read_mask(path)
    assert caught.value.reason == "mask_not_binary"
    if len(values) < 8:
        assert np.array_equal(read_mask(path, 127), grey > 127)
        assert np.array_equal(read_mask(path, 0), grey > 0)


def test_jpeg_masks(tmp_path: Path) -> None:
    path = saved(tmp_path, images.encode_jpeg(DISC, 90))
    assert len(np.unique(np.asarray(Image.open(path)))) > 8
    assert reason(read_mask, path) == "mask_not_binary"
    assert np.array_equal(read_mask(path, 127), DISC > 127)
    black = saved(tmp_path, images.encode_jpeg(DISC * 0, 90), "black")
    assert not read_mask(black).any()
    noisy = saved(tmp_path, images.encode_jpeg(DISC * 0 + 1, 100), "noisy")
    assert np.asarray(Image.open(noisy)).max() == 1
    assert reason(read_mask, noisy) == "mask_not_binary"
    in_tiff = encoded(Image.fromarray(DISC * 0 + 1), "TIFF", compression="jpeg", quality=100)
    assert reason(read_mask, saved(tmp_path, in_tiff, "tiff")) == "mask_not_binary"


@pytest.mark.parametrize(("share", "passes"), [(0.009, True), (0.011, False)])
@pytest.mark.parametrize(
    ("threshold", "unclear", "clear"), [(127, (64, 190), (63, 191)), (0, (1, 127), (0, 128))]
)
def test_ambiguous_share(
    tmp_path: Path,
    share: float,
    passes: bool,
    threshold: int,
    unclear: tuple[int, int],
    clear: tuple[int, int],
) -> None:
    grey = np.full(10_000, 255, np.uint8)
    grey[:6000] = 0
    grey[-20:] = np.arange(236, 256)  # many levels, all clear
    grey[100:400] = np.resize(clear, 300)
    grey[1000 : 1000 + int(share * 10_000)] = np.resize(unclear, int(share * 10_000))
    path = saved(tmp_path, images.encode_png(grey.reshape(100, 100)))
    if passes:
        assert np.array_equal(read_mask(path, threshold).ravel(), grey > threshold)
    else:
        assert reason(read_mask, path, threshold) == "mask_ambiguous"


def test_blurred_mask_is_ambiguous(tmp_path: Path) -> None:
    small = Image.fromarray(DISC[::8, ::8]).resize((64, 64), Image.Resampling.BILINEAR)
    assert reason(read_mask, saved(tmp_path, encoded(small, "PNG")), 127) == "mask_ambiguous"


@pytest.mark.parametrize("threshold", [-1, 255, 300])
def test_bad_threshold(tmp_path: Path, threshold: int) -> None:
    path = saved(tmp_path, images.encode_png(DISC))
    assert reason(read_mask, path, threshold) == "bad_threshold"


def test_masks_that_are_not_plain(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 3
    see_through = np.dstack([DISC, DISC, DISC, 255 - DISC])
    for data, expected in (
        (encoded(Image.fromarray(DISC), "PNG", exif=exif), "mask_orientation"),
        (encoded(Image.fromarray(NOISE), "PNG"), "mask_colour"),
        (encoded(COLOURED, "PNG"), "mask_colour"),
        (encoded(Image.fromarray(see_through), "PNG"), "mask_alpha"),
        (encoded(Image.fromarray(DISC), "PNG", transparency=0), "mask_alpha"),
        (encoded(Image.fromarray(GREY_16), "PNG"), "unsupported_mode"),
        (tiff(np.ones((4, 4, 3), np.uint16), photometric="rgb"), "unsupported_mode"),
        (b"", "empty"),
    ):
        path = saved(tmp_path, data)
        for threshold in (None, 127):
            assert reason(read_mask, path, threshold) == expected
        assert reason(read_trimap, path) == expected


def test_levels(tmp_path: Path) -> None:
    levels = RNG.choice(np.array([0, 127, 255], np.uint8), (6, 9))
    images.write_png(tmp_path / "a.png", levels)
    assert np.array_equal(read_trimap(tmp_path / "a.png"), levels)
    assert read_trimap(tmp_path / "a.png").dtype == np.uint8
    for wrong in (levels // 255 * 128, levels // 255):
        images.write_png(tmp_path / "b.png", wrong)
        assert reason(read_trimap, tmp_path / "b.png") == "not_levels"
    images.write_jpeg(tmp_path / "c.png", DISC * 0, 90)
    assert reason(read_trimap, tmp_path / "c.png") == "not_levels"


# --- what is written


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.booleans(), st.integers(0, 2**32 - 1))
def test_png_round_trip(height: int, width: int, colour: bool, seed: int) -> None:
    shape = (height, width, 3) if colour else (height, width)
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    pixels, info = decode_image(images.encode_png(array[::-1]), "x")
    assert np.array_equal(pixels, array[::-1] if colour else array[::-1, :, None].repeat(3, 2))
    assert info.mode == ("RGB" if colour else "L")


def test_a_png_may_have_transparency_a_jpeg_may_not() -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    picture = Image.open(io.BytesIO(images.encode_png(array)))
    assert picture.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(picture), array)
    with pytest.raises(ValueError, match="need uint8"):
        images.encode_jpeg(array, 90)


def test_jpeg_is_pillows(tmp_path: Path) -> None:
    images.write_jpeg(tmp_path / "a.jpg", NOISE, 71)
    expected = encoded(Image.fromarray(NOISE), "JPEG", quality=71)
    assert (tmp_path / "a.jpg").read_bytes() == expected
    for quality in (0, 101):
        with pytest.raises(ValueError, match="quality"):
            images.encode_jpeg(NOISE, quality)


@pytest.mark.parametrize(
    "array",
    [np.ones((4, 4), bool), np.ones((4, 4)), np.ones((4, 4, 2), np.uint8), np.ones(4, np.uint8)],
)
def test_nothing_is_left_where_encoding_fails(tmp_path: Path, array: Any) -> None:
    with pytest.raises(ValueError, match="need uint8"):
        images.write_png(tmp_path / "a.png", array)
    with pytest.raises(ValueError, match="need uint8"):
        images.write_jpeg(tmp_path / "a.jpg", array, 90)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    images.write_png(path, NOISE)

    def fail(_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        images.write_png(path, 255 - NOISE)
    assert np.array_equal(read_image(path)[0], NOISE)
    assert list(tmp_path.iterdir()) == [path]


def test_every_reason_is_documented() -> None:
    source = Path(images.__file__).read_text()
    quoted = ("missing", "permission", "unreadable", "not_a_file", "truncated_or_corrupt")
    codes = {*quoted, *re.findall(r'RejectedInput\(\w+, "(\w+)"', source)}
    assert len(codes) > 15
    assert images.__doc__
    assert [code for code in codes if code not in images.__doc__] == []


def _tiff(path: Path, first: tuple[int, int], below: tuple[int, int] | None, **tags: Any) -> Path:
    """A TIFF with a picture of a size and, if given, another in a sub-directory."""
    with tifffile.TiffWriter(path) as writer:
        pixels = RNG.integers(0, 255, (*first, 3), dtype=np.uint8)
        writer.write(pixels, photometric="rgb", subifds=int(below is not None), **tags)
        if below is not None:
            writer.write(RNG.integers(0, 4095, below, dtype=np.uint16), photometric="minisblack")
    return path


_DNG = [(50706, "B", 4, (1, 4, 0, 0), True)]  # DNGVersion


@pytest.mark.parametrize(
    ("first", "below", "tags"),
    [
        ((12, 16), (80, 120), {"subfiletype": 1}),  # Nikon, Sony, Pentax
        ((12, 16), (80, 120), {}),
        ((12, 16), (80, 120), {"subfiletype": 1, "extratags": _DNG}),
        ((80, 120), None, {"extratags": _DNG}),
    ],
)
def test_camera_raw_is_not_taken_for_its_preview(
    first: tuple[int, int], below: tuple[int, int] | None, tags: dict[str, Any], tmp_path: Path
) -> None:
    path = _tiff(tmp_path / "a.tif", first, below, **tags)
    for read in (read_image, images.probe, images.read_mask):
        with pytest.raises(RejectedInput, match="develop it first") as caught:
            read(path)
        assert caught.value.reason == "camera_raw"


def test_canon_raw_is_known_by_its_magic_number(tmp_path: Path) -> None:
    data = bytearray(_tiff(tmp_path / "a.tif", (12, 16), None).read_bytes())
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    directory = data[first : first + 2 + 12 * count + 4]
    data[4:8] = len(data).to_bytes(4, "little")
    data[8:12] = b"CR\x02\x00"
    with pytest.raises(RejectedInput, match="camera raw"):
        decode_image(bytes(data + directory), "a.cr2")


def test_a_pyramid_is_its_largest_picture(tmp_path: Path) -> None:
    path = _tiff(tmp_path / "a.tif", (80, 120), (40, 60))
    assert read_image(path)[1].size == (80, 120)


def test_a_damaged_sub_directory_does_not_concern_the_picture(tmp_path: Path) -> None:
    path = _tiff(tmp_path / "a.tif", (80, 120), None, extratags=[(330, "I", 1, 2**31, True)])
    assert read_image(path)[1].size == (80, 120)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_reduced_jpeg_is_the_average_of_the_whole(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.jpg"
    rows, columns = np.mgrid[:400, :640]
    grey = (120 + 60 * np.sin(rows / 40) + 60 * np.cos(columns / 50)).astype(np.uint8)
    Image.fromarray(grey).convert(mode).save(path, quality=95)
    whole, info = images.read_image(path)
    reduced, same = images.read_reduced(path, 64)
    assert same == info
    assert reduced.shape == (100, 160, 3)  # a quarter: an eighth would be below 64 rows
    expected = whole.reshape(100, 4, 160, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced - expected).max() < 6


def test_other_formats_and_small_files_are_read_whole(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    images.write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(images.read_reduced(tmp_path / "a.png", 16)[0], pixels)
    images.write_jpeg(tmp_path / "a.jpg", pixels[:60, :60], 90)
    reduced, _ = images.read_reduced(tmp_path / "a.jpg", 64)
    np.testing.assert_array_equal(reduced, images.read_image(tmp_path / "a.jpg")[0])


def test_a_truncated_jpeg_is_no_reduced_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    images.write_jpeg(path, np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8), 90)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(RejectedInput) as caught:
        images.read_reduced(path, 16)
    assert caught.value.reason == "truncated_or_corrupt"
