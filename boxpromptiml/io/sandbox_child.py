"""What runs in the child of `isolation.IsolatedDecoder`: one decoder, under limits."""

import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from typing import Any

import numpy as np

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.io.images import Limits

_BYTES_PER_PIXEL = 3


def serve() -> None:
    """Read a path, decode, answer; until the input ends."""
    settings = json.loads(sys.argv[1])
    limits = Limits(**settings["limits"])
    _limit(resource.RLIMIT_DATA, settings["memory"])
    _limit(resource.RLIMIT_FSIZE, _BYTES_PER_PIXEL * limits.max_pixels)
    _limit(resource.RLIMIT_CORE, 0)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    for line in sys.stdin.buffer:
        _limit_time(settings["seconds"])
        answer = _decode(json.loads(line), limits, settings["pixels"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _limit(what: int, value: int) -> None:
    _, most = resource.getrlimit(what)
    resource.setrlimit(what, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def _limit_time(seconds: float) -> None:
    """End by SIGXCPU some time after the parent should have killed us: it may be dead itself."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 2)


def _decode(path: str, limits: Limits, pixels: int) -> dict[str, Any]:
    try:
        image, info = images.read_image(path, limits)
    except RejectedInput as error:
        return {"reason": error.reason, "message": error.message}
    except MemoryError:
        return {"reason": "out_of_memory", "message": "needs more memory than is allowed"}
    os.ftruncate(pixels, 0)
    left, place = np.ascontiguousarray(image).data.cast("B"), 0
    while left:
        count = os.pwrite(pixels, left, place)
        left, place = left[count:], place + count
    return {"size": image.shape[:2], "info": asdict(info)}
