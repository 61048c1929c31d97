"""Runs an exported network in a child process with limits on time and memory.

A graph can contain loops and unreasonable sizes. Beyond its limits the child is killed, and the job
ends with one line. The child returns a known count of numbers, never objects.
"""

import json
import os
import resource
import select
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boxpromptiml.errors import UserError
from boxpromptiml.inference.maps import NetworkOutput, Precision
from boxpromptiml.io.processes import start_server, stop_server
from boxpromptiml.models.inputs import FloatArray

_PROGRAM = "from boxpromptiml.inference.isolated_network import serve; serve()"
_MAX_MESSAGE = 2**20
_HEADER = 16  # bytes of a length as decimal digits, padded


@dataclass(frozen=True, slots=True)
class NetworkBounds:
    """Limits on running an exported network.

    Attributes:
        seconds: Wall clock for loading, and for every batch.
        memory: Bytes of data that the child may hold; a batch of 16 megapixels in a TinyViT takes
            less than half of the default.
    """

    seconds: float = 600.0
    memory: int = 8 * 2**30


DEFAULT_NETWORK_BOUNDS = NetworkBounds()


class IsolatedNetwork:
    """A `Network` that runs in a child process. Use it from one thread.

    Args:
        kind: Name of a class of `onnx_networks`.
        path: The `.onnx` file.
        device: As for that class.
        precision: As for that class.
        threads: As for that class.
        bounds: Limits of the child.

    Attributes:
        description: The file's metadata.

    Raises:
        UserError: As that class, and if loading exceeds the limits.
    """

    def __init__(
        self,
        kind: str,
        path: Path,
        device: str,
        precision: Precision,
        threads: int | None = None,
        bounds: NetworkBounds = DEFAULT_NETWORK_BOUNDS,
    ) -> None:
        self._path, self._bounds = path, bounds
        wanted = [kind, os.fspath(path), device, precision, threads, bounds.memory]
        self._process = start_server(_PROGRAM, wanted)
        self.description: dict[str, Any] = self._message(self._deadline())

    def __call__(self, image: FloatArray) -> NetworkOutput:
        """Logits of inputs (B, C, h, w).

        Raises:
            UserError: If the network cannot run on this input, or exceeds its limits.
        """
        deadline = self._deadline()
        self._send(_framed(json.dumps(image.shape).encode()), deadline)
        self._send(np.ascontiguousarray(image).data.cast("B"), deadline)
        self._message(deadline)
        count, height, width = image.shape[0], *image.shape[2:]
        logits = self._floats((count, 1, height, width), deadline)
        return NetworkOutput(logits, self._floats((count,), deadline))

    def close(self) -> None:
        """Stop the child."""
        stop_server(self._process)

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            self.close()

    def _deadline(self) -> float:
        return time.monotonic() + self._bounds.seconds

    def _message(self, deadline: float) -> dict[str, Any]:
        try:
            length = int(self._receive(_HEADER, deadline))
            if not 0 <= length <= _MAX_MESSAGE:
                raise ValueError("length")
            message = json.loads(self._receive(length, deadline))
            if not isinstance(message, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise self._failed("its process answered nonsense") from error
        if "error" in message:
            self.close()
            raise UserError(str(message["error"])[:1000])
        return message

    def _floats(self, shape: tuple[int, ...], deadline: float) -> FloatArray:
        data = self._receive(4 * int(np.prod(shape)), deadline)
        return np.frombuffer(data, np.float32).reshape(shape)

    def _send(self, data: bytes | memoryview, deadline: float) -> None:
        handle = self._process.stdin.fileno()  # type: ignore[union-attr] # a pipe
        os.set_blocking(handle, False)
        left = memoryview(data)
        while left:
            self._wait(handle, select.POLLOUT, deadline)
            try:
                left = left[os.write(handle, left) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise self._failed(self._death()) from error

    def _receive(self, count: int, deadline: float) -> bytearray:
        handle = self._process.stdout.fileno()  # type: ignore[union-attr] # a pipe
        data = bytearray()
        while len(data) < count:
            self._wait(handle, select.POLLIN, deadline)
            piece = os.read(handle, min(count - len(data), 2**20))
            if not piece:
                raise self._failed(self._death())
            data += piece
        return data

    def _wait(self, handle: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(handle, event)
        if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            raise self._failed(f"takes more than {self._bounds.seconds:g} s")

    def _death(self) -> str:
        status = self._process.wait()
        memory = self._bounds.memory / 2**30
        return f"its process ended (status {status}); it may hold {memory:g} GiB"

    def _failed(self, reason: str) -> UserError:
        self.close()
        return UserError(f"{self._path}: cannot be run: {reason}")


def _framed(data: bytes) -> bytes:
    return str(len(data)).rjust(_HEADER).encode() + data


def serve() -> None:
    """The child's main loop: load the network, send its metadata, then run every batch."""
    from boxpromptiml.inference import onnx_networks  # noqa: PLC0415 - its own process

    kind, path, device, precision, threads, memory = json.loads(sys.argv[1])
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    most = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers, requests = sys.stdout.buffer, sys.stdin.buffer
    try:
        network = getattr(onnx_networks, kind)(Path(path), device, precision, threads)
        _say(answers, network.description)
        while header := requests.read(_HEADER):
            shape = tuple(json.loads(requests.read(int(header))))
            data = requests.read(4 * int(np.prod(shape)))
            logits, image_logit = network(np.frombuffer(data, np.float32).reshape(shape))
            wanted = (shape[0], 1, *shape[2:])
            if (logits.shape, image_logit.shape) != (wanted, shape[:1]):
                raise UserError(f"{path}: gives a map of shape {logits.shape}, not {wanted}")
            _say(answers, {})
            answers.write(np.ascontiguousarray(logits, np.float32).data)
            answers.write(np.ascontiguousarray(image_logit, np.float32).data)
            answers.flush()
    except UserError as error:
        _say(answers, {"error": str(error)})
    except MemoryError:
        _say(answers, {"error": f"{path}: needs more memory than the {memory / 2**30:g} GiB given"})


def _say(stream: Any, message: dict[str, Any]) -> None:
    stream.write(_framed(json.dumps(message).encode()))
    stream.flush()
