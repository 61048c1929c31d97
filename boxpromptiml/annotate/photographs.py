"""The photographs that the page shows: of a folder, or uploaded and kept in memory."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeVar

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.folders import files_below
from boxpromptiml.io.images import DEFAULT_LIMITS, ImageInfo, probe
from boxpromptiml.io.orientation import upright_size
from boxpromptiml.io.progress import track
from boxpromptiml.io.sandbox import IsolatedDecoder
from boxpromptiml.manifests.manifest import check_relative, confined
from boxpromptiml.records import ImageArray

T = TypeVar("T")

_MAX_DECODED = 120_000_000  # pixels in memory, 3 bytes each; one photograph is kept in any case
_MAX_UPLOADED = DEFAULT_LIMITS.max_bytes  # of all uploads together; the oldest are forgotten


@dataclass(frozen=True, slots=True)
class Photograph:
    """What is known of a photograph before its pixels are decoded.

    Attributes:
        name: Path below the folder, with forward slashes; the bare name of an upload.
        size: (H, W) of the stored pixels.
        orientation: EXIF orientation, 1 to 8.
        sha256: Hash of the file.
    """

    name: str
    size: tuple[int, int]
    orientation: int
    sha256: str

    @property
    def shown_size(self) -> tuple[int, int]:
        """(H, W) of the upright picture."""
        return upright_size(self.size, self.orientation)


def find_photographs(
    folder: Path, known: Mapping[str, Photograph], leave_out: Iterable[Path] = ()
) -> tuple[list[Photograph], list[RejectedInput]]:
    """All images below a folder, by name, and why other files are none.

    Args:
        folder: The folder.
        known: Photographs of an earlier call by name, whose files are not read again.
        leave_out: Files that are not looked at.

    Raises:
        UserError: If there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of photographs")
    root = folder.resolve()
    others = {path.parent.resolve() / path.name for path in leave_out}
    files = [path.relative_to(root) for path in files_below(root) if path not in others]
    found: list[Photograph] = []
    rejected: list[RejectedInput] = []
    for relative in track(files, "looking at photographs", len(files)):
        name = relative.as_posix()
        try:
            found.append(known[name] if name in known else _look_at(folder / relative, name))
        except RejectedInput as error:
            rejected.append(error)
    if not found:
        some = f", for example {rejected[0]}" if rejected else ""
        raise UserError(f"{folder}: holds no image that can be read{some}")
    return found, rejected


def _look_at(path: Path, name: str) -> Photograph:
    try:
        check_relative(name)
        name.encode()  # no lone surrogates, which stand for bytes that are not UTF-8
    except (UserError, UnicodeEncodeError) as error:
        message = "has a name that a manifest cannot hold; rename it"
        raise RejectedInput(path, "bad_name", message) from error
    return _described(name, probe(path))


def _described(name: str, info: ImageInfo) -> Photograph:
    return Photograph(name, info.size, info.orientation, info.sha256)


class Album:
    """Photographs by number, decoded in a child process; the latest stay decoded.

    Methods may be called from any thread.

    Args:
        root: Folder of the photographs; None if there are uploads only.
        photographs: Those of the folder, in the order in which they are numbered.
        decode: Decodes files and bytes.
    """

    def __init__(
        self, root: Path | None, photographs: Iterable[Photograph], decode: IsolatedDecoder
    ) -> None:
        self._root = root
        self._all = list(photographs)
        self._in_folder = len(self._all)
        self._decode = decode
        self._uploads: OrderedDict[int, bytes] = OrderedDict()
        self._pixels: OrderedDict[int, ImageArray] = OrderedDict()
        self._lock = Lock()  # the decoder handles one image at a time

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, number: int) -> Photograph:
        return self._all[number]

    def pixels(self, number: int) -> ImageArray:
        """The stored pixels (H, W, 3) of a photograph; the same read-only array while it is kept.

        Raises:
            RejectedInput: If it cannot be read, is another file than at the start, or is an upload
                that is kept no longer. The error names it without its folder.
        """
        with self._lock:
            if number not in self._pixels:
                self._keep(number, self._decoded(number))
            self._pixels.move_to_end(number)
            return self._pixels[number]

    def add(self, name: str, data: bytes) -> int:
        """Keep an uploaded file in memory and return its number.

        Raises:
            RejectedInput: If it cannot be read.
        """
        with self._lock:
            image, info = self._decode.decode_bytes(data, name)
            number = len(self._all)
            self._all.append(_described(name, info))
            self._uploads[number] = data
            _shorten(self._uploads, len, _MAX_UPLOADED)
            self._keep(number, image)
            return number

    def _decoded(self, number: int) -> ImageArray:
        photograph = self._all[number]
        name = photograph.name
        try:
            if number in self._uploads:
                image, info = self._decode.decode_bytes(self._uploads[number], name)
            elif self._root is None or number >= self._in_folder:
                raise RejectedInput(name, "forgotten", "is kept no longer; open it again")
            else:
                image, info = self._decode(confined(self._root, name))
        except RejectedInput as error:
            raise RejectedInput(name, error.reason, error.message) from error
        if _described(name, info) != photograph:
            message = "is another file than the one that was there first; put that back"
            raise RejectedInput(name, "changed", message)
        return image

    def _keep(self, number: int, image: ImageArray) -> None:
        image.flags.writeable = False
        self._pixels[number] = image
        _shorten(self._pixels, lambda one: one.shape[0] * one.shape[1], _MAX_DECODED)


def _shorten(kept: OrderedDict[int, T], cost: Callable[[T], int], most: int) -> None:
    """Forget the oldest until the rest costs no more than `most`; the newest stays."""
    while len(kept) > 1 and sum(map(cost, kept.values())) > most:
        kept.popitem(last=False)
