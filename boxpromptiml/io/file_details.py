"""What an image file says about itself beside its pixels: compression, metadata, thumbnail.

All of it is a stranger's word, and easily changed: it is shown to people, and nothing depends on
it.
"""

import base64
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile

from boxpromptiml.io import images
from boxpromptiml.io.images import DEFAULT_LIMITS, Limits
from boxpromptiml.io.jpeg import Compression, compression_of, earlier_quality, tables_of

_MAX_VALUE = 200  # characters of a value of the metadata
_MAX_VALUES = 60
_MAX_THUMBNAIL = 2**17  # bytes
_MAX_XMP = 2**20
_TOOLS = re.compile(
    r"(?:xmp:CreatorTool|stEvt:softwareAgent)(?:=\"|='|>)([^\"'<]{1,200})", re.IGNORECASE
)
_THUMBNAIL_START, _THUMBNAIL_LENGTH = 0x0201, 0x0202
# Shown by their own rows, or of no use to a reader.
_LEFT_OUT = {
    "ExifOffset", "GPSInfo", "ExifInteroperabilityOffset", "MakerNote", "PrintImageMatching",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileDetails:
    """What a file says about itself.

    Attributes:
        length: Size of the file in bytes.
        compression: Compression settings of a JPEG; None for other formats.
        table: (64,) its luminance quantisation table, row by row; empty for other formats.
        earlier_quality: Quality of an earlier JPEG compression, where its traces show; see
            `jpeg.earlier_quality`.
        metadata: Names and values, as text of limited length.
        thumbnail: The embedded preview, a JPEG; empty if there is none.
    """

    length: int
    compression: Compression | None = None
    table: tuple[int, ...] = ()
    earlier_quality: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    thumbnail: bytes = field(default=b"", repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for another process."""
        thumbnail = base64.b64encode(self.thumbnail).decode()
        return asdict(self) | {"thumbnail": thumbnail}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "FileDetails":
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: If the values are not those of `to_json`.
        """
        packed = values["compression"]
        earlier = values["earlier_quality"]
        return cls(
            length=int(values["length"]),
            compression=None if packed is None else Compression(*packed),
            table=tuple(int(step) for step in values["table"]),
            earlier_quality=None if earlier is None else int(earlier),
            metadata=tuple((str(name), str(value)) for name, value in values["metadata"]),
            thumbnail=base64.b64decode(values["thumbnail"]),
        )


def read_details(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> FileDetails:
    """What an image file says about itself.

    Raises:
        RejectedInput: As `images.read_image`.
    """
    with images.opened(path, limits) as (picture, data):
        compression, earlier = compression_of(picture), None
        metadata, thumbnail = _metadata(picture, data)
        table = tuple(next(iter(tables_of(picture).values()), ()))
        if table and picture.mode in ("L", "RGB"):
            picture.draft("L", picture.size)  # the luminance itself, not that of RGB
            earlier = earlier_quality(np.asarray(picture.convert("L")), table)
    return FileDetails(len(data), compression, table, earlier, metadata, thumbnail)


def _metadata(
    picture: ImageFile.ImageFile, data: bytes
) -> tuple[tuple[tuple[str, str], ...], bytes]:
    found: list[tuple[str, str]] = []
    thumbnail, block = b"", picture.info.get("exif", b"")
    try:
        exif = Image.Image.getexif(picture)  # the base class: PNG's own would decode the pixels
        for tags in (exif, exif.get_ifd(ExifTags.IFD.Exif)):
            named = ((ExifTags.TAGS.get(tag, ""), value) for tag, value in tags.items())
            found += [(name, _text(v)) for name, v in named if name and name not in _LEFT_OUT]
        if exif.get_ifd(ExifTags.IFD.GPSInfo):
            found.append(("GPS position", "present, not shown here"))
        thumbnail = _thumbnail(exif, block)
    except Exception:  # noqa: BLE001 (any damage; nothing depends on it)
        found.append(("EXIF", "unreadable"))
    if block and not found:
        found.append(("EXIF", "present, without readable values"))
    found = [pair for pair in found + _texts(picture) if pair[1]]
    if (more := len(found) - _MAX_VALUES) > 0:
        found[_MAX_VALUES:] = [("Further values", f"{more}, not shown here")]
    xmp = picture.info.get("xmp", picture.info.get("XML:com.adobe.xmp", b""))
    text = xmp[:_MAX_XMP].decode("utf-8", "replace") if isinstance(xmp, bytes) else xmp[:_MAX_XMP]
    if tools := sorted(set(_TOOLS.findall(text)))[:5]:
        found.append(("Software named in XMP", "; ".join(tools)))
    for name, present in (
        ("XMP", bool(xmp)),
        ("Colour profile", "icc_profile" in picture.info),
        ("Photoshop resources", "photoshop" in picture.info),
        ("Content Credentials (C2PA)", b"c2pa" in data[:_MAX_XMP]),
    ):
        if present:
            found.append((name, "present, not verified" if "C2PA" in name else "present"))
    return tuple(found), thumbnail


def _texts(picture: ImageFile.ImageFile) -> list[tuple[str, str]]:
    """The comment of a JPEG and the texts of a PNG, where generators write their prompts."""
    try:
        texts = dict(getattr(picture, "text", {}))  # decodes, since some stand behind the pixels
    except Exception:  # noqa: BLE001 (any damage; nothing depends on it)
        return [("Texts of the PNG", "unreadable")]
    texts.pop("XML:com.adobe.xmp", None)
    texts["Comment of the file"] = picture.info.get("comment", b"")
    return [(_text(name) or "Text", _text(value)) for name, value in texts.items()]


def _text(value: object) -> str:
    """A value of the metadata as one line of text; empty for binary data."""
    if isinstance(value, bytes):
        value = value.rstrip(b"\0").decode("ascii", "replace") if value.isascii() else ""
    return " ".join(str(value).replace("\0", " ").split())[:_MAX_VALUE]


def _thumbnail(exif: Image.Exif, block: bytes) -> bytes:
    """The embedded JPEG, which EXIF locates relative to its own header."""
    tags = exif.get_ifd(ExifTags.IFD.IFD1)
    start, length = tags.get(_THUMBNAIL_START), tags.get(_THUMBNAIL_LENGTH)
    if not (isinstance(start, int) and isinstance(length, int) and 0 < length <= _MAX_THUMBNAIL):
        return b""
    body = block.removeprefix(b"Exif\0\0")
    cut = body[start : start + length] if start > 0 else b""
    return cut if cut.startswith(b"\xff\xd8") else b""
