"""Every kind of damaged, foreign and odd file: its ending, its bytes, why it may be rejected."""

import io
import pickle
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.reliability import pictures as p
from tests.reliability.pictures import SIZE, Dice

Make = Callable[[Dice], bytes]
Entry = tuple[str, Make, tuple[str, ...]]

_ENDINGS = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "BMP": "bmp", "WEBP": "webp"}
_DAMAGE = ("truncated_or_corrupt", "unknown_format")
_UNKNOWN = ("unknown_format",)
_TOO_LARGE = ("too_many_pixels", "side_too_long", *_DAMAGE)
_MODE = ("unsupported_mode", *_DAMAGE)
_H, _W = SIZE


def _plain(kind: str, dice: Dice) -> bytes:
    options = {"quality": 90} if kind in ("JPEG", "WEBP") else {}
    return p.encoded(p.noise(dice), kind, **options)


def _truncated(kind: str) -> Entry:
    return _ENDINGS[kind], lambda dice: p.cut(_plain(kind, dice), dice), _DAMAGE


def _tail(kind: str) -> Entry:
    return _ENDINGS[kind], lambda dice: _plain(kind, dice)[: -int(dice.integers(40, 80))], _DAMAGE


def _head(kind: str) -> Entry:
    return _ENDINGS[kind], lambda dice: _plain(kind, dice)[: int(dice.integers(4, 24))], _DAMAGE


def _foreign(kind: str, mode: str = "RGB") -> Make:
    return lambda dice: p.encoded(Image.fromarray(p.noise(dice)).convert(mode), kind)


def _frames(kind: str) -> Make:
    def make(dice: Dice) -> bytes:
        first, second = (Image.fromarray(p.noise(dice)) for _ in range(2))
        return p.encoded(first, kind, save_all=True, append_images=[second])

    return make


def _zip(dice: Dice) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as stream:
        stream.writestr("a.txt", dice.bytes(50))
    return buffer.getvalue()


def _replaced(kind: str, old: bytes, new: bytes) -> Make:
    return lambda dice: _plain(kind, dice).replace(old, new, 1)


def _bad_crc(dice: Dice) -> bytes:
    data = bytearray(_plain("PNG", dice))
    data[data.index(b"IDAT") - 8] ^= 0xFF  # the check sum before it belongs to IHDR
    return bytes(data)


def _bad_idat_crc(dice: Dice) -> bytes:
    data = bytearray(_plain("PNG", dice))
    data[-16] ^= 0xFF
    return bytes(data)


def _lzw(dice: Dice) -> bytes:
    return p.damaged(p.encoded(p.noise(dice), "TIFF", compression="tiff_lzw"), dice, 300, 200)


def _broken_stream(dice: Dice) -> bytes:
    return p.png(_W, _H, zlib.compress(dice.bytes(500))[:-50] + bytes(50))


def _text_bomb(kind: bytes) -> Make:
    def make(dice: Dice) -> bytes:
        more = p.chunk(kind, b"Comment\0\0" + zlib.compress(bytes(80 * 2**20)))
        return p.png(_W, _H, zlib.compress(bytes(40)), more)

    return make


def _webp_of(width: int, height: int) -> Make:
    bits = (width - 1) | (height - 1) << 14
    body = b"VP8L" + (6).to_bytes(4, "little") + b"\x2f" + bits.to_bytes(4, "little") + b"\0"
    data = b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body
    return lambda dice: data


def _same(data: bytes) -> Make:
    return lambda dice: data


def _floats(dice: Dice) -> bytes:
    return p.encoded(Image.fromarray(dice.random(SIZE, np.float32)), "TIFF")


def _int32(dice: Dice) -> bytes:
    return p.encoded(Image.fromarray(dice.integers(0, 70000, SIZE, np.int32)), "TIFF")


DAMAGED: dict[str, Entry] = {
    **{f"truncated_{kind.lower()}": _truncated(kind) for kind in _ENDINGS},
    **{f"tail_cut_{kind.lower()}": _tail(kind) for kind in _ENDINGS},
    **{f"head_only_{kind.lower()}": _head(kind) for kind in _ENDINGS},
    "empty": ("jpg", _same(b""), ("empty",)),
    "one_byte": ("jpg", _same(b"\xff"), _UNKNOWN),
    "zeros": ("png", _same(bytes(4096)), _UNKNOWN),
    "random_bytes": ("jpg", lambda dice: dice.bytes(3000), _DAMAGE),
    "text": ("txt", _same(b"hello\n" * 20), _UNKNOWN),
    "text_as_png": ("png", _same("grüße\n".encode()), _UNKNOWN),
    "html": ("jpg", _same(b"<html><script>alert(1)</script>404 not found</html>"), _UNKNOWN),
    "svg": ("svg", _same(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), _UNKNOWN),
    "postscript": ("eps", _foreign("EPS"), _UNKNOWN),
    "pickle": ("jpg", _same(pickle.dumps({"a": 1})), _UNKNOWN),
    "zip": ("jpg", _zip, _UNKNOWN),
    "executable": ("jpg", _same(b"\x7fELF\2\1\1" + bytes(200)), _UNKNOWN),
    "pdf": ("jpg", _foreign("PDF"), _UNKNOWN),
    "gif": ("gif", _foreign("GIF", "P"), _UNKNOWN),
    "gif_as_jpg": ("jpg", _foreign("GIF", "P"), _UNKNOWN),
    "ppm": ("ppm", _foreign("PPM"), _UNKNOWN),
    "ico": ("png", _foreign("ICO"), _UNKNOWN),
    "jpeg_2000": ("jpg", _foreign("JPEG2000"), _UNKNOWN),
    "gif_and_script": ("gif", _same(b"GIF89a/*" + bytes(9) + b"*/=1;alert(1)"), _UNKNOWN),
    "two_pages": ("tif", _frames("TIFF"), ("multi_frame",)),
    "moving_png": ("png", _frames("PNG"), ("multi_frame",)),
    "moving_webp": ("webp", _frames("WEBP"), ("multi_frame",)),
    "png_header_crc": ("png", _bad_crc, _DAMAGE),
    "png_broken_stream": ("png", _broken_stream, _DAMAGE),
    "png_no_pixels": ("png", _same(p.png(_W, _H, b"")), _DAMAGE),
    "png_zero_width": ("png", _same(p.png(0, 9, zlib.compress(b""))), _DAMAGE),
    "png_odd_depth": ("png", _same(p.png(9, 9, b"x", depth=7)), _DAMAGE),
    "jpeg_zero_height": ("jpg", _same(p.jpeg_of(9, 0)), _DAMAGE),
    "jpeg_no_tables": ("jpg", _replaced("JPEG", b"\xff\xdb", b"\xff\xfe"), _DAMAGE),
    "jpeg_no_frame": ("jpg", _replaced("JPEG", b"\xff\xc0", b"\xff\xfe"), _DAMAGE),
    "tiff_lzw_damage": ("tif", _lzw, _DAMAGE),
    "tiff_strip_outside": ("tif", _same(p.grey_tiff(_W, _H, offset=2**31)), _DAMAGE),
    "tiff_no_directory": ("tif", _same(b"II*\0" + (2**31).to_bytes(4, "little")), _DAMAGE),
    "tiff_huge_count": ("tif", _same(p.tiff([(256, 4, 2**31, 8), (257, 4, 1, 9)])), _DAMAGE),
    "tiff_float": ("tif", _floats, _MODE),
    "tiff_int32": ("tif", _int32, _MODE),
    "tiff_signed": ("tif", _same(p.grey_tiff(8, 8, sample_format=2)), _MODE),
    "tiff_lab": ("tif", _foreign("TIFF", "LAB"), _MODE),
    "bmp_zero_width": ("bmp", _same(p.bmp(0, 9)), _DAMAGE),
    "bmp_odd_bits": ("bmp", _same(p.bmp(9, 9, 7)), _MODE),
    "bmp_odd_compression": ("bmp", _same(p.bmp(9, 9, 24, 77)), _DAMAGE),
    "webp_damaged": ("webp", lambda dice: p.damaged(_plain("WEBP", dice), dice, 12, 300), _DAMAGE),
    "bomb_png_header": ("png", _same(p.png(60000, 60000, zlib.compress(bytes(9)))), _TOO_LARGE),
    "bomb_png_largest": ("png", _same(p.png(2**31 - 1, 2**31 - 1, b"x")), _TOO_LARGE),
    "bomb_png_13000": ("png", _same(p.flat_png(13000, 13000)), _TOO_LARGE),
    "bomb_png_text": ("png", _text_bomb(b"zTXt"), _DAMAGE),
    "bomb_png_profile": ("png", _text_bomb(b"iCCP"), _DAMAGE),
    "bomb_jpeg_header": ("jpg", _same(p.jpeg_of(65500, 65500)), _TOO_LARGE),
    "bomb_jpeg_scans": ("jpg", _same(p.scan_bomb(9000, 1500)), ("too_many_scans",)),
    "bomb_tiff_header": ("tif", _same(p.grey_tiff(60000, 60000, compression=8)), _TOO_LARGE),
    "bomb_bmp_header": ("bmp", _same(p.bmp(60000, 60000)), _TOO_LARGE),
    "bomb_webp_header": ("webp", _webp_of(16383, 16383), _TOO_LARGE),
    "one_by_70000": ("png", _same(p.flat_png(70000, 1)), _TOO_LARGE),
    "70000_by_one": ("png", _same(p.flat_png(1, 70000)), _TOO_LARGE),
}  # fmt: skip


def _converted(mode: str, kind: str) -> Make:
    return lambda dice: p.encoded(Image.fromarray(p.noise(dice)).convert(mode), kind)


def _grey_16(dice: Dice) -> bytes:
    return p.encoded(Image.fromarray(dice.integers(0, 2**16, SIZE, np.uint16)), "PNG")


def _turned(kind: str, orientation: int) -> Make:
    return lambda dice: p.with_exif(kind, p.noise(dice), orientation)


def _directory_loop(dice: Dice) -> bytes:
    pixels = p.noise(dice)[..., 0].tobytes()
    return p.grey_tiff(_W, _H, data=pixels, following=8 + len(pixels))


def _followed_by_zip(dice: Dice) -> bytes:
    return _plain("JPEG", dice) + _zip(dice)


def _with_exif(exif: bytes) -> Make:
    return lambda dice: p.encoded(p.noise(dice), "JPEG", exif=b"Exif\0\0" + exif)


# Sound files that tempt a decoder to do something else than decode.
ODD: dict[str, Entry] = {
    "odd_progressive": ("jpg", lambda d: p.encoded(p.noise(d), "JPEG", progressive=True), ()),
    "odd_cmyk": ("jpg", _converted("CMYK", "JPEG"), ()),
    "odd_cmyk_tiff": ("tif", _converted("CMYK", "TIFF"), ()),
    "odd_palette": ("png", _converted("P", "PNG"), ()),
    "odd_alpha": ("png", _converted("RGBA", "PNG"), ()),
    "odd_one_bit": ("png", _converted("1", "PNG"), ()),
    "odd_grey_16": ("png", _grey_16, ()),
    "odd_wrong_ending": ("jpg", lambda dice: _plain("PNG", dice), ()),
    "odd_no_ending": ("", lambda dice: _plain("PNG", dice), ()),
    "odd_zip_behind": ("jpg", _followed_by_zip, ()),
    "odd_comment": ("jpg", lambda d: p.encoded(p.noise(d), "JPEG", comment=b"<?php die(); ?>"), ()),
    "odd_exif_damaged": ("jpg", _with_exif(b"MM\0*\xff\xff\xff\xff"), ()),
    # libjpeg fills what is missing with grey and warns; Pillow keeps that to itself. Only the hash
    # in a manifest tells such a file from a whole one.
    "odd_jpeg_short_of_data": ("jpg", _same(p.jpeg_of(_W, _H)), ()),
    "odd_pixels_crc": ("png", _bad_idat_crc, ()),
    "odd_directory_loop": ("tif", _directory_loop, ()),
    "odd_exif_loop": ("jpg", _with_exif(b"II*\0\x08\0\0\0\0\0\x08\0\0\0"), ()),
    **{f"odd_turned_{o}": ("jpg", _turned("JPEG", o), ()) for o in range(2, 9)},
    "odd_turned_tiff": ("tif", _turned("TIFF", 6), ()),
    "odd_turned_webp": ("webp", _turned("WEBP", 8), ()),
}  # fmt: skip
