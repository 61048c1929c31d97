"""A2 and A3: the pseudo-mask job killed, with workers, twice at once."""

import signal
import time
from pathlib import Path

import numpy as np

from boxpromptiml.errors import EXIT_FAILED, EXIT_OK
from tests.helpers.commands import Command, Ended, run
from tests.reliability.faults import DEADLY, AtWrite
from tests.reliability.figures import Figure, judged
from tests.reliability.material import make_manifest

_PATIENCE = 120.0  # seconds; a loaded machine


def command(manifest: Path, out: Path, workers: int = 0) -> list[str]:
    """The words of a pseudo-mask job."""
    return ["data_prep", "pseudo-masks", f"--manifest={manifest}", f"--out={out}",
            f"--num_workers={workers}"]  # fmt: skip


def content(out: Path) -> dict[str, bytes]:
    """All that a finished job wrote, but for the summary, which counts what this run did."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("summary.json", ".lock")
    }


def differences(what: str, whole: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """Where two folders differ."""
    names = sorted(whole.keys() | found.keys())
    return [f"{what}: {name} differs" for name in names if whole.get(name) != found.get(name)]


def survives_kills(work: Path, images: int, inside: int, timed: int, seed: int = 0) -> Figure:
    """A2: kill the job again and again, each time in a new folder; resume; compare bytes.

    Args:
        work: An empty folder.
        images: Number of images.
        inside: Kills at a random write, most of them inside it.
        timed: Kills at a random time.
        seed: Of the random points.
    """
    dice = np.random.default_rng(seed)
    manifest = make_manifest(work / "data", images)
    whole = run(command(manifest, work / "whole"))
    faults = [f"whole: {whole.said}"] if whole.status != EXIT_OK else []
    expected = content(work / "whole")
    redone: list[int] = []
    for number in range(inside + timed):
        out = work / f"killed_{number}"
        if number < inside:
            point = DEADLY[number % len(DEADLY)]
            # Masks, sidecars, manifest and summary; errors.jsonl between these is empty.
            write = int(dice.choice([*range(2 * images + 1), 2 * images + 2]))
            where = f"write {write}, {point}"
            ended = run(command(manifest, out), AtWrite(write, point))
        else:
            where = "timed"
            ended = _killed_at(manifest, out, float(dice.uniform()) * whole.seconds)
        if ended.status not in (-signal.SIGKILL, EXIT_OK) or (
            number < inside and ended.status == EXIT_OK
        ):
            faults.append(f"{where}: ended with {ended.status}: {ended.said[-200:]}")
        complete = len(list(out.rglob("masks/**/*.json")))
        resumed = run(command(manifest, out))
        if resumed.status != EXIT_OK:
            faults.append(f"{where}: the resumed job ended with {resumed.status}: {resumed.said}")
        faults += differences(where, expected, content(out))
        redone.append(_made(resumed) - (images - complete))
    faults += [f"{count} finished images were done again" for count in redone if count > 0]
    reached = (
        f"{inside} kills at a write ({inside - inside // 4} inside it) and {timed} at a random "
        f"time of {images} images: {len(faults)} differences, no .tmp left, "
        f"at most {max(redone, default=0)} finished images redone"
    )
    demand = "kill -9 of the pseudo-mask job: resumed output byte-identical, nothing left behind"
    return judged("A2", demand, reached, faults)


def _killed_at(manifest: Path, out: Path, seconds: float) -> Ended:
    process = Command(command(manifest, out))
    time.sleep(seconds)
    process.kill()
    return process.wait()


def _made(ended: Ended) -> int:
    """How many images a job says that it made."""
    words = ended.said.split(" made now")[0].split()
    return int(words[-1]) if words and words[-1].isdigit() else -1


def workers_agree(work: Path, images: int) -> Figure:
    """A3: 1, 2, 4 workers; a killed worker; a killed parent; two jobs in one folder."""
    manifest = make_manifest(work / "data", images)
    run(command(manifest, work / "whole"))
    expected = content(work / "whole")
    faults: list[str] = []
    for workers in (1, 2, 4):
        out = work / f"workers_{workers}"
        run(command(manifest, out, workers))
        faults += differences(f"{workers} workers", expected, content(out))
    faults += _killed_worker(manifest, work / "worker", expected)
    faults += _killed_parent(manifest, work / "parent", expected)
    faults += _two_jobs(manifest, work / "two", expected)
    reached = (
        f"1, 2 and 4 workers, one worker killed, the job killed under its workers, two jobs at "
        f"once on {images} images: {len(faults)} differences"
    )
    return judged(
        "A3", "workers and concurrent jobs: byte-identical, one kill included", reached, faults
    )


def _killed_worker(manifest: Path, out: Path, expected: dict[str, bytes]) -> list[str]:
    ended = run(command(manifest, out, 2), AtWrite(3, "half"))  # in each worker
    faults = []
    if ended.status != EXIT_FAILED or "worker was killed" not in ended.said or ended.crashed:
        faults.append(f"killed worker: {ended.status}: {ended.said[-300:]}")
    return faults + _resumed("killed worker", manifest, out, expected)


def _killed_parent(manifest: Path, out: Path, expected: dict[str, bytes]) -> list[str]:
    process = Command(command(manifest, out, 2))
    deadline = time.monotonic() + _PATIENCE
    while not list(out.rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    return _resumed("killed job", manifest, out, expected)


def _resumed(what: str, manifest: Path, out: Path, expected: dict[str, bytes]) -> list[str]:
    """Run again; orphaned workers hold the lock until they notice, a fraction of a second."""
    deadline = time.monotonic() + 4
    ended = run(command(manifest, out))
    while "another pseudo-mask job" in ended.said and time.monotonic() < deadline:
        time.sleep(0.5)
        ended = run(command(manifest, out))
    faults = [] if ended.status == EXIT_OK else [f"{what}: resumed: {ended.status}: {ended.said}"]
    return faults + differences(what, expected, content(out))


def _two_jobs(manifest: Path, out: Path, expected: dict[str, bytes]) -> list[str]:
    """Two jobs on one folder; the second stops, or comes late and finds all done."""
    first, second = Command(command(manifest, out)), Command(command(manifest, out))
    ends = [first.wait(), second.wait()]
    faults = [f"two jobs: {end.said[-300:]}" for end in ends if end.crashed]
    if EXIT_OK not in [end.status for end in ends]:
        faults.append(f"two jobs: both failed: {ends[0].said} {ends[1].said}")
    return faults + differences("two jobs", expected, content(out))
