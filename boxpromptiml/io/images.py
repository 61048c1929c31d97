"""The one place that turns files into pixels and pixels into files.

Pixels come in stored order: EXIF orientation is recorded and never applied, because traces of a
forgery, masks and boxes live in stored coordinates. Colour profiles and gamma are ignored. Files
are untrusted: the limits hold before anything is decoded, and whatever a decoder raises leaves
here as `RejectedInput`. Decoding changes no global state, so threads may share it.

Reason codes of a rejection:
    missing, permission, unreadable: the system does not give us the file
    not_a_file: folder, symbolic link, FIFO, socket or device
    empty, too_many_bytes, too_many_pixels, side_too_long: outside `Limits`
    camera_raw: a TIFF of a camera (DNG, NEF, CR2, ...), whose first picture is a preview
    unknown_format: no readable header of JPEG, PNG, TIFF, BMP or WebP
    truncated_or_corrupt, out_of_memory: the header is fine, decoding fails
    too_many_scans: a progressive JPEG that goes over its pixels hundreds of times
    multi_frame: an animation or several pages
    unsupported_mode: no justified way to 8 bits: floats, 32-bit integers, Lab, 16-bit masks
    mask_orientation: a mask with an EXIF orientation other than 1
    mask_colour, mask_alpha: a mask whose channels differ, or with transparent parts
    mask_not_binary: a mask of other than two clean levels, and no threshold is declared
    mask_ambiguous: a smeared mask that the declared threshold does not settle
    bad_threshold: a threshold outside 0 to 254
    not_levels: a pseudo-mask with values other than 0, 127 and 255
"""

import errno
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import files
from boxpromptiml.records import GreyArray, ImageArray, MaskArray, TrimapArray

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
}
_CONVERTIBLE = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"}  # by Pillow, to RGB
_GREY_16 = {"I;16", "I;16B"}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 262, 274
_TIFF_SUBFILE_TYPE, _TIFF_SUB_DIRECTORIES, _DNG_VERSION = 254, 330, 50706
_MAX_SUB_DIRECTORIES = 16
_TIFF_SAMPLES, _TIFF_PLANAR, _TIFF_SAMPLE_FORMAT = 277, 284, 339

# Pillow turns oriented TIFFs while it loads them; these turn them back.
_UNDO_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_SYSTEM_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.EACCES: "permission",
    errno.ELOOP: "not_a_file",  # what O_NOFOLLOW says of a link
    errno.ENXIO: "not_a_file",  # a socket
}
# The head of a scan, which the bytes of pixels never look like.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_MAX_SCANS = 100  # encoders write about ten; each may cost a pass over all pixels in a few bytes
_CLEAN_LEVELS = 8  # a mask of so few levels was drawn; JPEG or resizing smears it over more
_MAX_AMBIGUOUS = 0.01


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on a file.

    Pillow's own limit, the default for pixels, applies too; see `raise_pillow_limit`.

    Attributes:
        max_bytes: Size of the file.
        max_pixels: Height times width.
        max_side: Height or width in pixels.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 89_478_485
    max_side: int = 65_500


DEFAULT_LIMITS = Limits()


def raise_pillow_limit(limits: Limits) -> None:
    """Let this whole process decode images of more pixels than Pillow does by itself."""
    Image.MAX_IMAGE_PIXELS = max(limits.max_pixels, DEFAULT_LIMITS.max_pixels)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts about a decoded file.

    Attributes:
        format: JPEG, PNG, TIFF, BMP or WEBP, by content.
        mode: Pillow's name of the stored pixels, such as RGB, P or I;16.
        size: (H, W) of the stored pixels.
        orientation: EXIF tag 274 in 1 to 8; 1 when absent or invalid. Never applied.
        sha256: Hash of the file's bytes.
        notes: What was dropped, converted or looks odd, a few words each.
    """

    format: str
    mode: str
    size: tuple[int, int]
    orientation: int
    sha256: str
    notes: tuple[str, ...]


def read_image(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> tuple[ImageArray, ImageInfo]:
    """Pixels (H, W, 3) RGB of an image file in stored order, and where they come from.

    Raises:
        RejectedInput: With a reason code of this module, and nothing else for any content.
    """
    return decode_image(_read_file(path, limits), str(path), limits)


def decode_image(
    data: bytes, name: str, limits: Limits = DEFAULT_LIMITS
) -> tuple[ImageArray, ImageInfo]:
    """`read_image` for a file's bytes in memory.

    Args:
        data: All bytes of the file.
        name: Of the file, for messages and the check of its ending.
        limits: What the file may cost.

    Raises:
        RejectedInput: As `read_image`.
    """
    with _rejecting(name):
        picture, info = _open(data, name, limits)
        return _as_rgb(_load(picture, info)), info


@contextmanager
def opened(
    path: str | Path, limits: Limits = DEFAULT_LIMITS
) -> Iterator[tuple[ImageFile.ImageFile, bytes]]:
    """An image file whose header is read and within the limits, and its bytes.

    Raises:
        RejectedInput: As `read_image`, for what happens within the block too.
    """
    data = _read_file(path, limits)
    with _rejecting(str(path)):
        yield _open(data, str(path), limits)[0], data


def read_reduced(
    path: str | Path, side: int, limits: Limits = DEFAULT_LIMITS
) -> tuple[ImageArray, ImageInfo]:
    """`read_image`, but of a JPEG only as many pixels as its thumbnail needs.

    The decoder leaves out the fine frequencies, so that this costs a twelfth for 12 megapixels;
    damage is found all the same. Other formats come whole.

    Args:
        path: Of the file.
        side: Pixels that both sides keep at least, where they have as many.
        limits: What the file may cost.

    Returns:
        (h, w, 3) RGB, down to an eighth of the stored sides, and the facts about the whole file.

    Raises:
        RejectedInput: As `read_image`.
    """
    data = _read_file(path, limits)
    with _rejecting(str(path)):
        picture, info = _open(data, str(path), limits)
        if info.format == "JPEG":
            picture.draft(None, (side, side))
        reduced = replace(info, size=(picture.height, picture.width))
        return _as_rgb(_load(picture, reduced if info.format == "JPEG" else info)), info


def probe(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> ImageInfo:
    """The facts that `read_image` would return, without decoding pixels.

    Raises:
        RejectedInput: As `read_image`, but damage behind the header goes unnoticed.
    """
    data = _read_file(path, limits)
    with _rejecting(str(path)):
        return _open(data, str(path), limits)[1]


def read_mask(
    path: str | Path, threshold: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> MaskArray:
    """Mask (H, W), True where manipulated.

    Without a threshold only two exact levels pass: 0 | 255, or 0 | 1 in a lossless file. With one,
    a grey value above it is manipulated. A mask of many levels was smeared by JPEG or resizing: a
    pixel is ambiguous when its value is nearer to the threshold than to 0 or 255 on its side, and
    above 1 % of such pixels the mask is rejected. Masks of few clean levels pass.

    Args:
        path: The file.
        threshold: Grey level from 0 to 254; None: the mask must be binary.
        limits: Limits on the file's bytes and pixels.

    Raises:
        RejectedInput: For bad files and for masks that are not clearly binary.
    """
    grey, lossless = _decode_grey(path, limits)
    levels = np.unique(grey)
    if threshold is None:
        if levels[-1] in ((0, 1, 255) if lossless else (0, 255)) and set(levels) <= {0, levels[-1]}:
            return grey > 0
        message = f"has {len(levels)} grey levels up to {levels[-1]}; declare a mask threshold"
        raise RejectedInput(path, "mask_not_binary", message)
    if not 0 <= threshold < 255:
        raise RejectedInput(path, "bad_threshold", f"mask threshold {threshold} is not 0 to 254")
    if len(levels) > _CLEAN_LEVELS:
        unclear = ((grey > threshold / 2) & (grey < (threshold + 255) / 2)).mean()
        if unclear > _MAX_AMBIGUOUS:
            message = f"{unclear:.1%} of the pixels are ambiguous at threshold {threshold}; 1% may"
            raise RejectedInput(path, "mask_ambiguous", message)
    return grey > threshold


def read_trimap(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> TrimapArray:
    """Pseudo-mask (H, W) of 0 authentic, 127 unsure and 255 manipulated.

    Raises:
        RejectedInput: For bad files, lossy ones, and any other value.
    """
    grey, lossless = _decode_grey(path, limits)
    levels = np.unique(grey)
    if not lossless or not set(levels) <= {0, 127, 255}:
        message = f"has {len(levels)} levels up to {levels[-1]}, not a PNG of 0, 127 and 255"
        raise RejectedInput(path, "not_levels", message)
    return grey


def read_levels(
    path: str | Path, chunk: bytes = b"", limits: Limits = DEFAULT_LIMITS
) -> tuple[npt.NDArray[np.uint8 | np.uint16 | np.float32], bytes | None]:
    """Grey values (H, W) of a lossless file in their stored depth, and a private chunk of a PNG.

    Channels that are all equal are one grey value. Values of a float TIFF are as they are, in any
    range, nan included.

    Args:
        path: A PNG or a TIFF.
        chunk: Name of the chunk, four letters; None is returned where there is none.
        limits: What the file may cost.

    Raises:
        RejectedInput: For bad files, for colour, and for all but PNG and lossless TIFF.
    """
    return decode_levels(_read_file(path, limits), str(path), chunk, limits)


def decode_levels(
    data: bytes, name: str, chunk: bytes = b"", limits: Limits = DEFAULT_LIMITS
) -> tuple[npt.NDArray[np.uint8 | np.uint16 | np.float32], bytes | None]:
    """`read_levels` for a file's bytes in memory; `name` is for messages.

    Raises:
        RejectedInput: As `read_image`, and if the file has no grey levels.
    """
    with _rejecting(name):
        picture, info = _open(data, name, limits, floats=True)
        if info.format not in ("PNG", "TIFF") or _is_jpeg_inside(picture):
            message = f"is a {info.format} file; save maps as 16-bit PNG"
            raise RejectedInput(name, "unsupported_mode", message)
        stored = _load(picture, info)
        chunks = {entry[0]: entry[1] for entry in getattr(picture, "private_chunks", [])}
        if stored.mode == "F":
            return np.asarray(stored, np.float32), chunks.get(chunk)
        if stored.mode in _GREY_16:
            return np.asarray(stored).astype(np.uint16), chunks.get(chunk)
        if _is_16_bit(picture):
            raise RejectedInput(name, "unsupported_mode", "has 16-bit colour; save 16-bit grey")
        return _as_grey(stored, name, "maps"), chunks.get(chunk)


def _is_jpeg_inside(picture: ImageFile.ImageFile) -> bool:
    return "jpeg" in str(picture.info.get("compression"))


def encode_png(
    array: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], chunk: tuple[bytes, bytes] | None = None
) -> bytes:
    """A PNG of grey (H, W), RGB (H, W, 3) or RGBA pixels of 8 bits, or of grey pixels of 16.

    Those of 16 bits are compressed by runs of equal bytes only: for probability maps that is five
    times as fast as zlib's default, and the file 1 to 4 % larger.

    Args:
        array: The pixels.
        chunk: Name (four letters, see the PNG specification) and content of a private chunk.

    Raises:
        ValueError: For any other shape or type.
    """
    extra = PngInfo()
    if chunk is not None:
        extra.add(*chunk)
    fast = {"compress_level": 1, "compress_type": zlib.Z_RLE} if array.dtype == np.uint16 else {}
    return _encode(array, "PNG", {"pnginfo": extra} | fast)


def encode_jpeg(array: npt.NDArray[np.uint8], quality: int, orientation: int = 1) -> bytes:
    """A JPEG of grey (H, W) or RGB (H, W, 3) uint8 pixels, with Pillow's chroma subsampling.

    `orientation` is as in `write_jpeg`.

    Raises:
        ValueError: For any other shape or type, or a quality outside 1 to 100.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must be 1 to 100, got {quality}")
    options: dict[str, Any] = {"quality": quality}
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][ExifTags.Base.Orientation] = orientation
    return _encode(array, "JPEG", options)


def write_png(path: Path, array: npt.NDArray[np.uint8]) -> None:
    """Write pixels as a PNG file, which is whole or not there.

    Raises:
        ValueError: If `array` is not grey (H, W), RGB (H, W, 3) or RGBA of 8 bits.
        OSError: If the file cannot be written.
    """
    files.write_bytes(path, encode_png(array))


def write_jpeg(
    path: Path, array: npt.NDArray[np.uint8], quality: int, orientation: int = 1
) -> None:
    """Write RGB pixels (H, W, 3) as a JPEG of quality 1 to 100, whole or not at all.

    `orientation` is the EXIF value, 1 to 8, by which viewers turn the picture upright.

    Raises:
        OSError: If the file cannot be written.
    """
    files.write_bytes(path, encode_jpeg(array, quality, orientation))


def _encode(
    array: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], kind: str, options: dict[str, Any]
) -> bytes:
    is_grey_16 = array.dtype == np.uint16 and array.ndim == 2 and kind == "PNG"
    channels = ((), (3,), (4,)) if kind == "PNG" else ((), (3,))
    is_8_bit = array.dtype == np.uint8 and array.ndim >= 2 and array.shape[2:] in channels
    if not (is_8_bit or is_grey_16):
        raise ValueError(f"need uint8 (H, W) or (H, W, 3), got {array.dtype} {array.shape}")
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


@contextmanager
def _rejecting(name: str) -> Iterator[None]:
    """Turn whatever is raised inside into a rejection of `name`."""
    try:
        yield
    except RejectedInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        message = "has more pixels than Pillow's own limit"
        raise RejectedInput(name, "too_many_pixels", message) from error
    except UnidentifiedImageError as error:
        message = "no readable header of JPEG, PNG, TIFF, BMP or WebP; convert it to one of them"
        raise RejectedInput(name, "unknown_format", message) from error
    except MemoryError as error:
        raise RejectedInput(name, "out_of_memory", "needs more memory than there is") from error
    except Exception as error:
        number = getattr(error, "errno", None)  # decoders raise OSError without one
        reason = _SYSTEM_REASONS.get(number, "unreadable") if number else "truncated_or_corrupt"
        message = f"cannot be read: {str(error)[:200]} ({type(error).__name__})"
        if number == errno.ELOOP:
            message = "is a symbolic link, which is not followed; give the file itself"
        raise RejectedInput(name, reason, message) from error


def _read_file(path: str | Path, limits: Limits) -> bytes:
    """All bytes of a regular file; never waits on a FIFO, never follows a link at the end."""
    with _rejecting(str(path)):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise RejectedInput(path, "not_a_file", "is a folder, FIFO or device, not a file")
            _check_bytes(status.st_size, str(path), limits)
            with os.fdopen(handle, "rb", closefd=False) as stream:
                return stream.read(status.st_size)
        finally:
            os.close(handle)


def _check_bytes(count: int, name: str, limits: Limits) -> None:
    if count == 0:
        raise RejectedInput(name, "empty", "has no bytes")
    if count > limits.max_bytes:
        message = f"has {count} bytes, more than the limit of {limits.max_bytes}"
        raise RejectedInput(name, "too_many_bytes", message)


def _open(
    data: bytes, name: str, limits: Limits, floats: bool = False
) -> tuple[ImageFile.ImageFile, ImageInfo]:
    """Read the header, apply every limit, describe the file; no pixel is decoded.

    Args:
        data: The file's bytes.
        name: Of the file, for messages.
        limits: What it may cost.
        floats: Whether float pixels are taken too.
    """
    _check_bytes(len(data), name, limits)
    picture = Image.open(io.BytesIO(data), formats=tuple(_SUFFIXES))
    tags = getattr(picture, "tag_v2", None)  # TIFF, whose `size` is that of the display
    size = (tags[_TIFF_HEIGHT], tags[_TIFF_WIDTH]) if tags else (picture.height, picture.width)
    mode, mpo = picture.mode, picture.format == "MPO"
    # Pillow merely warns up to twice its own limit; here that limit is as hard as ours.
    most = min(limits.max_pixels, Image.MAX_IMAGE_PIXELS or limits.max_pixels)
    frames = getattr(picture, "is_animated", False) and not mpo
    progressive = bool(picture.info.get("progressive"))
    scans = sum(1 for _ in _SCAN.finditer(data)) if progressive else 1
    if tags and _is_camera_raw(tags, data, size):
        message = (
            "is camera raw, of which only a preview would be read; develop it first, and save the "
            "whole picture as TIFF or PNG"
        )
        raise RejectedInput(name, "camera_raw", message)
    for failed, reason, message in (
        (max(size) > limits.max_side, "side_too_long", f"has a side above {limits.max_side}"),
        (size[0] * size[1] > most, "too_many_pixels", f"has more than {most} pixels"),
        (scans > _MAX_SCANS, "too_many_scans", f"has {scans} scans; save it as a baseline JPEG"),
        (frames, "multi_frame", "has several frames or pages; extract the one you mean"),
        (
            not (_is_convertible(picture) or (floats and mode == "F")),
            "unsupported_mode",
            f"has odd {mode} pixels; save 8-bit RGB",
        ),
    ):
        if failed:
            raise RejectedInput(name, reason, f"{message} ({size[1]} x {size[0]})")
    kind = "JPEG" if mpo else str(picture.format)
    orientation, exif_note = _orientation(picture, data)
    suffix = Path(name).suffix.lower()
    notes = {
        f"extension {suffix} but {kind}": suffix not in ("", *_SUFFIXES[kind]),
        "first picture of an MPO": mpo,  # cameras append a preview or a second view
        "16-bit scaled to 8": _is_16_bit(picture),
        "alpha dropped": picture.has_transparency_data,
        "CMYK converted without its profile": mode == "CMYK",
        exif_note: exif_note != "",
    }
    applying = tuple(note for note, applies in notes.items() if applies)
    sha256 = files.sha256_bytes(data)
    return picture, ImageInfo(kind, mode, size, orientation, sha256, applying)


def _is_camera_raw(
    tags: TiffImagePlugin.ImageFileDirectory_v2, data: bytes, size: tuple[int, int]
) -> bool:
    """Whether the first picture of a TIFF stands for a larger one that we cannot read.

    Cameras put a preview first. Pyramids, which put smaller pictures into their sub-directories,
    are no camera raw.
    """
    is_preview = bool(tags.get(_TIFF_SUBFILE_TYPE, 0) & 1)
    if is_preview or _DNG_VERSION in tags or data[8:10] == b"CR":  # Canon's magic number
        return True
    offsets = tags.get(_TIFF_SUB_DIRECTORIES, ())
    for offset in (offsets if isinstance(offsets, tuple) else (offsets,))[:_MAX_SUB_DIRECTORIES]:
        below = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        with suppress(Exception):  # damage there does not concern the picture that is read
            stream = io.BytesIO(data)
            stream.seek(offset)
            below.load(stream)
            if below[_TIFF_HEIGHT] * below[_TIFF_WIDTH] > size[0] * size[1]:
                return True
    return False


def _is_16_bit(picture: ImageFile.ImageFile) -> bool:
    """Whether stored channels have 16 bits; `mode` is silent on it, for Pillow shortens RGB."""
    return ";16" in str(picture.tile[:1])


def _is_convertible(picture: ImageFile.ImageFile) -> bool:
    """Whether Pillow turns the stored values into the 8-bit ones that they mean."""
    mode, tags = picture.mode, getattr(picture, "tag_v2", None)
    if tags is None:
        return mode in _CONVERTIBLE | _GREY_16
    if set(tags.get(_TIFF_SAMPLE_FORMAT, (1,))) != {1}:  # signed bytes come out as unsigned
        return False
    if mode in _GREY_16:  # 12 bits come out unscaled, and white at 0 not inverted
        return _is_16_bit(picture) and tags.get(_TIFF_PHOTOMETRIC) == 1
    # Of uncompressed 16-bit planes Pillow 13 reads half the bytes, as if they had 8 bits.
    deep_planes = tags.get(_TIFF_PLANAR) == 2 and max(tags.get(_TIFF_BITS, (1,))) > 8
    return mode in _CONVERTIBLE and not deep_planes


def _orientation(picture: ImageFile.ImageFile, data: bytes) -> tuple[int, str]:
    """EXIF orientation in 1 to 8, and a note where it is not simply 1 or absent."""
    late = data.find(b"eXIf") + 4 if picture.format == "PNG" else 0
    if late > 4 and "exif" not in picture.info:  # the chunk lies behind the pixels
        picture.info["exif"] = b"Exif\0\0" + data[late : late + 2**16]
    try:  # by the base class, because the method of PNG would decode the pixels
        value = Image.Image.getexif(picture).get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 (any damage; pixels do not depend on it)
        return 1, "unreadable EXIF"
    if value not in range(1, 9):
        return 1, "invalid EXIF orientation read as 1"
    return int(value), "" if value == 1 else f"orientation {int(value)} not applied"


def _load(picture: ImageFile.ImageFile, info: ImageInfo) -> Image.Image:
    """Decode all pixels, in stored order."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("a library set PIL.ImageFile.LOAD_TRUNCATED_IMAGES; set it to False")
    if info.format == "TIFF":
        _check_strips(picture, info.size)
    picture.load()
    turned = info.format == "TIFF" and info.orientation != 1
    stored = picture.transpose(_UNDO_ORIENTATION[info.orientation]) if turned else picture
    if (stored.height, stored.width) != info.size:
        raise ValueError("header and pixels differ in size")
    return stored


def _check_strips(picture: ImageFile.ImageFile, size: tuple[int, int]) -> None:
    """Refuse a TIFF with missing strips or tiles, which Pillow would leave black."""
    tags = getattr(picture, "tag_v2", {})
    separate = tags.get(_TIFF_PLANAR) == 2 and picture.tile[0].codec_name == "raw"
    planes = tags.get(_TIFF_SAMPLES, 1) if separate else 1
    boxes = [tile.extents or (0, 0, 0, 0) for tile in picture.tile]
    covered = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)
    if covered < size[0] * size[1] * planes:
        raise ValueError("strips or tiles are missing")


def _as_rgb(picture: Image.Image) -> ImageArray:
    if picture.mode in _GREY_16:
        grey = (np.asarray(picture) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    picture.info.pop("transparency", None)  # else Pillow tries to carry it over, and warns
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _decode_grey(path: str | Path, limits: Limits) -> tuple[GreyArray, bool]:
    """Grey values (H, W) of a mask, and whether its compression is lossless."""
    name, data = str(path), _read_file(path, limits)
    with _rejecting(name):
        picture, info = _open(data, name, limits)
        if info.orientation != 1:
            message = f"has EXIF orientation {info.orientation}; save the mask without"
            raise RejectedInput(name, "mask_orientation", message)
        if _is_16_bit(picture):
            raise RejectedInput(name, "unsupported_mode", "is a 16-bit mask; convert it to 8 bits")
        lossy = info.format in ("JPEG", "WEBP") or _is_jpeg_inside(picture)
        stored = _load(picture, info)
        if stored.has_transparency_data and np.asarray(stored.convert("RGBA"))[..., 3].min() < 255:
            message = "has transparent parts; save the mask as opaque grey"
            raise RejectedInput(name, "mask_alpha", message)
        return _as_grey(stored, name, "masks"), not lossy


def _as_grey(picture: Image.Image, name: str, what: str) -> GreyArray:
    rgb = _as_rgb(picture)
    if (rgb != rgb[..., :1]).any():
        raise RejectedInput(name, "mask_colour", f"has channels that differ; {what} are grey")
    return np.ascontiguousarray(rgb[..., 0])
