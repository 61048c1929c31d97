"""Decodes images in a child process, so that a file that breaks a decoder costs one image only.

The child runs `serve`: it does what `images.read_image` does, under limits of memory, processor
time and file size. It is started once and used for all images; when an image takes too long or
kills it, that image is rejected and another child starts. Pixels come back through a file in memory
that is read, never mapped: a compromised child can send wrong pixels, but not crash its parent.
Images that are in memory go the same way, and touch no disk.

Reason codes of a rejection are those of `images` and two more:
    timeout: decoding took too long
    crashed: the decoder died, by a signal or otherwise
"""

import fcntl
import json
import math
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.file_details import FileDetails, read_details
from boxpromptiml.io.images import DEFAULT_LIMITS, ImageInfo, Limits
from boxpromptiml.io.processes import start_server, stop_server
from boxpromptiml.records import ImageArray

_PROGRAM = "from boxpromptiml.io.sandbox import serve; serve()"
_START_SECONDS = 60.0  # to import numpy and Pillow, on a busy machine
_MAX_REPLY = 2**20
_PATIENCE = 5  # wall clock for each second of processor time
_BYTES_PER_PIXEL = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What decoding one image may cost in time and memory.

    Attributes:
        seconds: Processor time; beyond it the child is killed, as it is after five times as much
            wall clock, which a busy machine or a slow disk may need.
        memory: Bytes of data the child may hold in total; an image of the largest size that
            `Limits` allow takes 1.3 GB when it has an alpha channel.

    Raises:
        UserError: If a value is out of range; the message names it.
    """

    seconds: float = 20.0
    memory: int = 2 * 2**30

    def __post_init__(self) -> None:
        if not (0 < self.seconds < 10**6 and self.memory > 0):
            raise UserError(
                f"bounds of decoding: seconds must be in (0, 10^6), memory above 0, got {self}"
            )


DEFAULT_BOUNDS = Bounds()


def for_pixels(count: int, seconds: float) -> tuple[Bounds, Limits]:
    """Bounds and limits that let images of up to `count` pixels be decoded.

    Memory grows with `count` beyond the default; `seconds` is the processor time for each image.
    """
    per_pixel = DEFAULT_BOUNDS.memory // DEFAULT_LIMITS.max_pixels  # 24 bytes
    memory = max(DEFAULT_BOUNDS.memory, per_pixel * count)
    most = max(DEFAULT_LIMITS.max_bytes, _BYTES_PER_PIXEL * count)
    return Bounds(seconds, memory), Limits(max_bytes=most, max_pixels=count)


Decoder = Callable[[Path], tuple[ImageArray, ImageInfo]]  # `images.read_image`, here or in a child


class FileDecoder(Protocol):
    """Opens image files, here or in a child process."""

    def __call__(self, path: str | Path, /) -> tuple[ImageArray, ImageInfo]:
        """`images.read_image`."""
        ...

    def details(self, path: str | Path, /) -> FileDetails:
        """`file_details.read_details`."""
        ...

    def decode_bytes(self, data: bytes, name: str, /) -> tuple[ImageArray, ImageInfo]:
        """As `images.decode_image`; `name` is for messages."""
        ...


class DirectDecoder:
    """A `FileDecoder` in this process, for files that cannot do harm."""

    __call__ = staticmethod(images.read_image)
    details = staticmethod(read_details)
    decode_bytes = staticmethod(images.decode_image)


class IsolatedDecoder:
    """`images.read_image` in a child process. Use it from one thread.

    Args:
        bounds: What decoding one image may cost in time and memory.
        limits: Limits on a file's bytes and pixels.

    Example:
        with IsolatedDecoder() as decode:
            image, info = decode("untrusted.jpg")
    """

    def __init__(self, bounds: Bounds = DEFAULT_BOUNDS, limits: Limits = DEFAULT_LIMITS) -> None:
        self._bounds = bounds
        self._limits = limits
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        """Start the child without waiting: its imports overlap with the caller's preparations."""
        self._child = self._child or _Child(self._bounds, self._limits)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the child."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def __call__(self, path: str | Path) -> tuple[ImageArray, ImageInfo]:
        """Decode an image: pixels (H, W, 3) RGB in stored order, and facts about the file.

        Raises:
            RejectedInput: As `images.read_image`, and for `timeout` and `crashed`.
            UserError: If no child can be started within the memory limit.
        """
        return self._asked(lambda child: child.decode(path, None), path)

    def details(self, path: str | Path) -> FileDetails:
        """What an image file says about itself.

        Raises:
            RejectedInput, UserError: As when called.
        """
        return self._asked(lambda child: child.details(path), path)

    def decode_bytes(self, data: bytes, name: str) -> tuple[ImageArray, ImageInfo]:
        """Decode an image in memory, which no disk has to hold.

        Args:
            data: All bytes of the file.
            name: Of the file, for messages and the check of its ending.

        Raises:
            RejectedInput, UserError: As when called with a path.
        """
        return self._asked(lambda child: child.decode(name, data), name)

    def _asked(self, question: "Callable[[_Child], T]", path: str | Path) -> T:
        if self._child is None:
            self._child = _Child(self._bounds, self._limits)
        try:
            return question(self._child)
        except _Lost as lost:
            self.close()
            raise RejectedInput(path, lost.reason, lost.message) from None
        except BaseException as error:
            if not isinstance(error, RejectedInput):  # Ctrl-C: a reply may be under way
                self.close()
            raise


class _Lost(Exception):  # noqa: N818 - not an error of the program
    """The child has died or is unusable."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class _Child:
    """A process that decodes; raises `_Lost` once it has died or must be replaced."""

    def __init__(self, bounds: Bounds, limits: Limits) -> None:
        made = os.memfd_create("pixels")
        # Above the standard streams, one of which may be closed here and is set in the child.
        self._pixels = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, 3)
        os.close(made)
        self._bounds, self._limits, self._ready = bounds, limits, False
        settings = asdict(bounds) | {"limits": asdict(limits), "pixels": self._pixels}
        self._process = start_server(_PROGRAM, settings, [self._pixels])

    def close(self) -> None:
        stop_server(self._process)
        os.close(self._pixels)

    def _wait_until_ready(self) -> None:
        try:
            self._reply(_START_SECONDS)
        except _Lost as lost:
            raise UserError(f"no decoder starts with {self._bounds}: {lost}") from lost
        self._ready = True

    def details(self, path: str | Path) -> FileDetails:
        """What a file says about itself."""
        try:
            return FileDetails.from_json(self._answer(path, None, "details")["details"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, RejectedInput):
                raise
            raise _Lost("crashed", f"the decoder replied with nonsense ({error})") from error

    def decode(self, path: str | Path, data: bytes | None) -> tuple[ImageArray, ImageInfo]:
        """Decode a file, or `data` if it is given, which the child finds where pixels will be."""
        if data is not None:
            _write(self._pixels, memoryview(data))
        reply = self._answer(path, None if data is None else len(data), "pixels")
        try:
            values = reply["info"]
            height, width = (int(side) for side in reply["size"])
            info = ImageInfo(
                str(values["format"]), str(values["mode"]), (height, width),
                int(values["orientation"]), str(values["sha256"]),
                tuple(str(note) for note in values["notes"]),
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise _Lost("crashed", f"the decoder replied with nonsense ({error})") from error
        return self._read_pixels(height, width), info

    def _answer(self, path: str | Path, length: int | None, what: str) -> dict[str, Any]:
        if not self._ready:
            self._wait_until_ready()
        asked = [os.fspath(path), length, what]
        request = json.dumps(asked).encode() + b"\n"  # surrogates become escapes
        try:
            os.write(self._process.stdin.fileno(), request)  # type: ignore[union-attr] # a pipe
        except BrokenPipeError as error:
            raise self._death() from error
        reply = self._reply(_PATIENCE * self._bounds.seconds)
        if "reason" in reply:
            raise RejectedInput(path, str(reply["reason"]), str(reply.get("message")))
        return reply

    def _read_pixels(self, height: int, width: int) -> ImageArray:
        if min(height, width) < 1 or height * width > self._limits.max_pixels:
            raise _Lost("crashed", f"the decoder replied with {width} x {height} pixels")
        array = np.empty((height, width, 3), np.uint8)
        if not _read(self._pixels, array.data.cast("B")):
            raise _Lost("crashed", "the decoder gave too few pixels")
        os.ftruncate(self._pixels, 0)  # its memory is ours
        return array

    def _reply(self, seconds: float) -> dict[str, Any]:
        """The child's next line, which must arrive before the deadline."""
        handle = self._process.stdout.fileno()  # type: ignore[union-attr] # a pipe
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        deadline, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise _Lost("timeout", f"not decoded after {seconds:g} s")
            piece = os.read(handle, 2**16)
            line += piece
            if not piece or len(line) > _MAX_REPLY:
                raise self._death()
        try:
            reply = json.loads(line)
        except ValueError as error:
            raise _Lost("crashed", "the decoder replied with nonsense") from error
        return reply if isinstance(reply, dict) else {}

    def _death(self) -> _Lost:
        self._process.kill()  # no effect on one that has died already
        status = self._process.wait()
        if status == -signal.SIGXCPU:
            return _Lost("timeout", f"takes more than {self._bounds.seconds:g} s of a processor")
        if status < 0:
            return _Lost("crashed", f"killed the decoder ({signal.Signals(-status).name})")
        return _Lost("crashed", f"ended the decoder (status {status})")


def _write(descriptor: int, left: memoryview) -> None:
    """Make these bytes the content of a file in memory."""
    os.ftruncate(descriptor, 0)
    place = 0
    while left:
        count = os.pwrite(descriptor, left, place)
        left, place = left[count:], place + count


def _read(descriptor: int, left: memoryview) -> bool:
    """Fill a buffer from the start of a file in memory; False if the file is too short."""
    place = 0
    while left:
        count = os.preadv(descriptor, [left], place)
        if count == 0:
            return False
        left, place = left[count:], place + count
    return True


def serve() -> None:
    """The child's main loop: read a path, decode it, reply, until the input ends."""
    settings = json.loads(sys.argv[1])
    limits = Limits(**settings["limits"])
    images.raise_pillow_limit(limits)
    _limit(resource.RLIMIT_DATA, settings["memory"])
    _limit(resource.RLIMIT_FSIZE, _BYTES_PER_PIXEL * limits.max_pixels)
    _limit(resource.RLIMIT_CORE, 0)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    for line in sys.stdin.buffer:
        _limit_time(settings["seconds"])
        reply = _decode(json.loads(line), limits, settings["pixels"])
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def _limit(what: int, value: int) -> None:
    _, most = resource.getrlimit(what)
    resource.setrlimit(what, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def _limit_time(seconds: float) -> None:
    """End by SIGXCPU after so many seconds of processor time, which the system counts whole."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds))


def _decode(asked: list[Any], limits: Limits, pixels: int) -> dict[str, Any]:
    """Decode what `_Child.decode` asked for; the reply to it."""
    path, length, what = asked
    try:
        if what == "details":
            return {"details": read_details(path, limits).to_json()}
        if length is None:
            image, info = images.read_image(path, limits)
        else:
            data = bytearray(length)
            _read(pixels, memoryview(data))
            os.ftruncate(pixels, 0)
            image, info = images.decode_image(bytes(data), path, limits)
    except RejectedInput as error:
        return {"reason": error.reason, "message": error.message}
    except MemoryError:
        return {"reason": "out_of_memory", "message": "needs more memory than is allowed"}
    _write(pixels, np.ascontiguousarray(image).data.cast("B"))
    return {"size": image.shape[:2], "info": asdict(info)}
