"""A4: the disk fills up, the folder cannot be written."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from boxpromptiml.errors import EXIT_FAILED, EXIT_OK, UserError
from boxpromptiml.manifests.sidecars import mask_sha256, read_sidecar
from tests.helpers.commands import Ended, run
from tests.reliability.faults import AtWrite, Point
from tests.reliability.figures import Figure, judged
from tests.reliability.kills import command, content, differences
from tests.reliability.material import make_checkpoint, make_manifest

_DEMAND = "disk full, read-only folder: one clear line, finished files verify, resume identical"


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of that size at `folder`; PermissionError where this process may not mount one."""
    folder.mkdir(parents=True)
    if not _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)):
        raise PermissionError("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(*words: str) -> bool:
    if os.geteuid() != 0:
        return False
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


def survives_full_disks(
    work: Path, images: int, sizes: Sequence[int], writes: Sequence[int]
) -> Figure:
    """The pseudo-mask job on small disks, then with room; writes that are refused; a whole verb.

    Args:
        work: An empty folder.
        images: Number of images.
        sizes: Of the disks, in kB.
        writes: Numbers of the writes that are refused, once as full and once as read-only.
    """
    manifest = make_manifest(work / "data", images)
    run(command(manifest, work / "whole" / "out"))
    expected = content(work / "whole" / "out")
    faults: list[str] = []
    try:
        for size in sizes:
            with small_disk(work / f"disk_{size}", size) as disk:
                faults += _on_small_disk(manifest, disk / "out", disk, expected)
        with small_disk(work / "locked", 100) as disk:
            _mount("-o", "remount,ro", str(disk))
            faults += _refused(f"read-only disk {disk}", run(command(manifest, disk / "out")))
            faults += _other_commands(work, manifest, disk)
    except PermissionError as error:
        return Figure("A4", _DEMAND, f"not run: {error}", None)
    points: tuple[Point, ...] = ("full", "read_only")
    for point in points:
        for number in writes:
            out = work / f"{point}_{number}" / "out"
            what = f"write {number} {point}"
            faults += _refused(what, run(command(manifest, out), AtWrite(number, point)))
            faults += _verified(what, out) + _resumed(what, manifest, out, expected)
    reached = (
        f"tmpfs of {', '.join(map(str, sizes))} kB, a read-only one (3 commands), "
        f"{2 * len(writes)} refused writes: {len(faults)} faults"
    )
    return judged("A4", _DEMAND, reached, faults)


def _on_small_disk(manifest: Path, out: Path, disk: Path, expected: dict[str, bytes]) -> list[str]:
    what = disk.name
    faults = _refused(what, run(command(manifest, out))) + _verified(what, out)
    _mount("-o", "remount,size=64m", str(disk))
    return faults + _resumed(what, manifest, out, expected)


def _other_commands(work: Path, manifest: Path, disk: Path) -> list[str]:
    """`localize` and `check` on a disk that cannot be written."""
    checkpoint = make_checkpoint(work / "tiny.ckpt")
    localize = ["boxpromptiml", "localize", f"--checkpoint={checkpoint}", f"--out={disk / 'a'}",
                "--images", str(manifest.parent / "tampered")]  # fmt: skip
    check = ["data_prep", "check", f"--manifest={manifest}", f"--out={disk / 'b'}"]
    return [fault for words in (localize, check) for fault in _refused(words[1], run(words))]


def _refused(what: str, ended: Ended) -> list[str]:
    """A job that could not write must say so in one line, with the file, and end with 1."""
    lines = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    if ended.crashed or ended.status != EXIT_FAILED or len(lines) != 1 or "/" not in lines[0]:
        return [f"{what}: ended with {ended.status}: {ended.said[-300:]}"]
    return []


def _verified(what: str, out: Path) -> list[str]:
    """No temporary file is left, and whatever has a sidecar is whole."""
    faults = [f"{what}: {path.name} is left" for path in out.rglob(".*.tmp")]
    for sidecar in out.rglob("masks/**/*.json"):
        mask = sidecar.with_suffix(".png")
        try:
            if read_sidecar(mask).mask_sha256 != mask_sha256(mask):
                faults.append(f"{what}: {mask.name} is not whole")
        except UserError as error:
            faults.append(f"{what}: {error}")
    return faults


def _resumed(what: str, manifest: Path, out: Path, expected: dict[str, bytes]) -> list[str]:
    ended = run(command(manifest, out))
    faults = [] if ended.status == EXIT_OK else [f"{what}: resumed: {ended.said[-300:]}"]
    return faults + differences(what, expected, content(out))
