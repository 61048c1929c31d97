"""Bytes of files that are no good picture, and of odd ones that are, for `hostile`.

Everything is made here from a generator of random numbers; equal seeds give equal bytes.
"""

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = (64, 96)  # (H, W) of every sound picture of the campaign
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")

Dice = np.random.Generator
Pixels = npt.NDArray[np.uint8]


def noise(dice: Dice, size: tuple[int, int] = SIZE) -> Pixels:
    """Pixels (H, W, 3) with a bright rectangle, so that a teacher finds something."""
    pixels = dice.integers(40, 90, (*size, 3), np.uint8)
    y, x = int(dice.integers(8, 24)), int(dice.integers(8, 40))
    pixels[y : y + 28, x : x + 36] += np.array([120, 60, 20], np.uint8)
    return pixels


def encoded(picture: Image.Image | Pixels, kind: str, **options: object) -> bytes:
    """A file of the format."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def cut(data: bytes, dice: Dice, low: float = 0.3, high: float = 0.9) -> bytes:
    """The first part of a file."""
    return data[: int(dice.uniform(low, high) * len(data))]


def damaged(data: bytes, dice: Dice, start: int, count: int = 40) -> bytes:
    """A file with bytes behind `start` replaced."""
    changed = bytearray(data)
    for place in dice.integers(start, len(data) - 4, count):
        changed[place] ^= int(dice.integers(1, 256))
    return bytes(changed)


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """One chunk of a PNG; its check sum is right unless one is given."""
    right = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", right)


def png(
    width: int, height: int, idat: bytes, more: bytes = b"", depth: int = 8, colour: int = 0
) -> bytes:
    """A PNG of the given header and compressed pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + more + (chunk(b"IDAT", idat) if idat else b"")
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def flat_png(width: int, height: int) -> bytes:
    """A black one-bit PNG, whole and tiny, of any size."""
    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png(width, height, data, depth=1)


def bmp(width: int, height: int, bits: int = 24, compression: int = 0) -> bytes:
    """A BMP header with a few bytes behind it."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 300, 0, 0, 54) + header + bytes(300)


def tiff(
    entries: list[tuple[int, int, int, int]], data: bytes = bytes(64), following: int = 0
) -> bytes:
    """A little-endian TIFF with one directory of (tag, type, count, value), data at byte 8."""
    start = 8 + len(data)
    rows = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    directory = struct.pack("<H", len(entries)) + rows + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", start) + data + directory


def grey_tiff(
    width: int, height: int, bits: int = 8, compression: int = 1, sample_format: int = 1,
    data: bytes = bytes(64), offset: int = 8, following: int = 0,
) -> bytes:  # fmt: skip
    """A grey TIFF of one strip."""
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, compression),
        (262, 3, 1, 1), (273, 4, 1, offset), (277, 3, 1, 1), (278, 4, 1, height),
        (279, 4, 1, len(data)), (339, 3, 1, sample_format),
    ]  # fmt: skip
    return tiff(entries, data, following)


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header lies about the size."""
    data = bytearray(encoded(np.zeros((16, 16), np.uint8), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def scan_bomb(side: int, scans: int) -> bytes:
    """A progressive JPEG that goes over all of its blocks again and again, in few bytes.

    Every scan codes one coefficient as one long run of empty blocks (the idea of
    CVE-2019-13960).
    """
    quantiser = b"\xff\xdb\0\x43\0" + b"\1" * 64
    frame = b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, side, side, 1) + b"\1\x11\0"
    # One code of one bit in each table: a DC difference of 0; a run of up to 2^15 - 1 empty blocks.
    tables = b"\xff\xc4\0\x14\x00\1" + bytes(15) + b"\0"
    tables += b"\xff\xc4\0\x14\x10\1" + bytes(15) + b"\xe0"
    blocks = ((side + 7) // 8) ** 2
    first = b"\xff\xda\0\x08\1\1\0\0\0\0" + bytes((blocks + 7) // 8)
    runs = blocks // (2**15 - 1) + 1
    bits = ("0" + "1" * 14) * runs  # the code, then 14 bits: 2^14 + (2^14 - 1) blocks
    packed = int(bits, 2).to_bytes((len(bits) + 7) // 8, "big") if bits else b""
    again = b"\xff\xda\0\x08\1\1\0\1\x3f\0" + packed.replace(b"\xff", b"\xff\0")
    return b"\xff\xd8" + quantiser + frame + tables + first + again * scans + b"\xff\xd9"


def with_exif(kind: str, pixels: Pixels, orientation: int) -> bytes:
    """A sound file that asks to be shown turned."""
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(pixels, kind, exif=exif)
