"""A8: memory and open files while thousands of images pass through."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED
from boxpromptiml.io import images
from boxpromptiml.io.sandbox import IsolatedDecoder
from tests.helpers.commands import run
from tests.reliability.figures import Figure, judged
from tests.reliability.material import make_checkpoint, make_manifest


@dataclass(frozen=True, slots=True)
class Watch:
    """Writes down resident size and open files when the n-th image is read, n in `at`."""

    log: Path
    at: tuple[int, ...]

    def __call__(self) -> None:
        """Arm it in this process: for what is decoded here, and for what a child decodes."""
        count = 0

        def watched(real: Callable[..., object]) -> Callable[..., object]:
            def counted(*args: object) -> object:
                nonlocal count
                count += 1
                if count in self.at:
                    with self.log.open("a") as stream:
                        stream.write(json.dumps([count, _resident(), _open_files()]) + "\n")
                return real(*args)

            return counted

        for owner, name in ((images, "read_image"), (IsolatedDecoder, "__call__")):
            setattr(owner, name, watched(getattr(owner, name)))


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def nothing_leaks(work: Path, first: int, last: int, most: float) -> Figure:
    """`localize`, `pseudo-masks` and `check` over `last` images.

    Args:
        work: An empty folder.
        first: The image from which on growth is counted.
        last: Number of images.
        most: MB that may be added.
    """
    manifest = make_manifest(work / "data", last)
    checkpoint = make_checkpoint(work / "tiny.ckpt")
    faults: list[str] = []
    grown: list[str] = []
    constant = True
    for name, words in _commands(manifest, checkpoint, work):
        log = work / f"{name}.log"
        ended = run(words, Watch(log, (first, last)), seconds=3600)
        if ended.status not in (EXIT_OK, EXIT_REJECTED) or not log.exists():
            faults.append(f"{name}: ended with {ended.status}: {ended.said[-300:]}")
            continue
        (_, mb, files), (_, more, more_files) = map(json.loads, log.read_text().splitlines())
        grown.append(f"{name} {more - mb:+.1f} MB")
        if more - mb > most:
            faults.append(f"{name}: {more - mb:.1f} MB more")
        if more_files != files:
            constant = False
            faults.append(f"{name}: {more_files} open files, {files} before")
    reached = f"image {first} to {last}: {', '.join(grown)}; open files constant: {constant}"
    demand = "memory grows by less than 20 MB over thousands of images, open files constant"
    return judged("A8", demand, reached, faults)


def _commands(manifest: Path, checkpoint: Path, work: Path) -> Iterator[tuple[str, list[str]]]:
    yield "localize", [
        "boxpromptiml", "localize", f"--checkpoint={checkpoint}", f"--out={work / 'localized'}",
        "--images", str(manifest.parent / "tampered"), "--threads=1",  # by default as many as idle
    ]  # fmt: skip
    yield "pseudo-masks", [
        "data_prep", "pseudo-masks", f"--manifest={manifest}", f"--out={work / 'pseudo'}",
    ]  # fmt: skip
    yield "check", [
        "data_prep", "check", f"--manifest={manifest}", f"--out={work / 'checked'}", "--verify",
    ]  # fmt: skip
