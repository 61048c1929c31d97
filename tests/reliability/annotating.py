"""A16: `annotate` killed, with a disk that is full, used by two, and started on an edited file."""

import http.client
import json
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from threading import Thread

import numpy as np

from boxpromptiml.annotate.photographs import find_photographs
from boxpromptiml.annotate.storage import Storage, manifest_path, open_out
from boxpromptiml.errors import EXIT_FAILED, EXIT_OK, UserError
from boxpromptiml.manifests.manifest import read_manifest
from tests.helpers.commands import Command, Ended, run
from tests.reliability.faults import DEADLY, AtWrite, Point
from tests.reliability.figures import Figure, judged
from tests.reliability.material import sound_images

_PHOTOGRAPHS = 3
_STEPS = 8  # saved in a row, two files each
_PATIENCE = 120.0  # seconds; a loaded machine
_DEMAND = (
    "annotate killed, disk full, two people, edited boxes.json: what was acknowledged is there, "
    "nothing else is overwritten, one clear line"
)
_ODD = ("-1", "0", "1e999", '"x"', "null", "[]", "{}", "99999999999999999999", "true", "NaN")


def nothing_annotated_is_lost(work: Path, writes: Sequence[int], edited: int) -> Figure:
    """Cause each fault and open the page again.

    Args:
        work: An empty folder.
        writes: Numbers of the writes at which it is killed, or the disk is full; 0 and 1 are made
            at the start, two at each step.
        edited: Number of random changes of boxes.json.
    """
    photographs = work / "photographs"
    sound_images(photographs, _PHOTOGRAPHS)
    faults: list[str] = []
    points: tuple[Point, ...] = (*DEADLY, "full", "read_only")
    for number, point in product(writes, points):
        folder = work / f"{point}_{number}"
        faults += _disturbed(photographs, folder / "boxes.json", AtWrite(number, point))
    faults += _two_people(photographs, work / "two" / "boxes.json")
    faults += _edited(photographs, work / "two" / "boxes.json", edited)
    reached = (
        f"{len(DEADLY) * len(writes)} kills and {2 * len(writes)} refused writes among {_STEPS} "
        f"steps, two people at once, {edited} edited files: {len(faults)} faults"
    )
    return judged("A16", _DEMAND, reached, faults)


@dataclass
class _Page:
    """A page that runs, and what it has acknowledged."""

    photographs: Path
    out: Path
    fault: AtWrite | None = None
    acknowledged: dict[int, float] = field(default_factory=dict)
    asked: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.command = Command(self.words, self.fault)
        deadline, found = time.monotonic() + _PATIENCE, None
        while found is None and self.command.alive and time.monotonic() < deadline:
            found = re.search(r"http://127\.0\.0\.1:(\d+)(/\S+/) ", self.command.said)
            time.sleep(0.02)
        self.port, self.root = (int(found[1]), found[2]) if found else (0, "")

    @property
    def words(self) -> list[str]:
        return ["boxpromptiml", "annotate", f"--images={self.photographs}", f"--out={self.out}"]

    def ask(self, path: str, body: object = None) -> tuple[int, bytes]:
        """Status and body of an answer; status 0 if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        headers = {"Origin": f"http://127.0.0.1:{self.port}"}
        try:
            if body is None:
                connection.request("GET", self.root + path)
            else:
                connection.request("POST", self.root + path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def get(self, number: int) -> tuple[int, float]:
        """Revision and seconds of a photograph; -1 if nobody answers."""
        status, body = self.ask(f"photographs/{number}")
        if status != 200:
            return -1, -1.0
        found = json.loads(body)
        return found["revision"], found["seconds"]

    def save(self, number: int, revision: int, seconds: float) -> int:
        """Save a box and return the status."""
        self.asked[number] = seconds
        change = {"revision": revision, "verdict": "manipulated", "boxes": [[1, 1, 20, 20]],
                  "finished": True, "seconds": seconds}  # fmt: skip
        status, _ = self.ask(f"photographs/{number}", change)
        if status == 200:
            self.acknowledged[number] = seconds
        return status

    def end(self) -> Ended:
        self.command.signal(signal.SIGINT)
        return self.command.wait(_PATIENCE)


def _disturbed(photographs: Path, out: Path, fault: AtWrite) -> list[str]:
    """Annotate until the fault, and open the page again."""
    what = f"{fault.point} at write {fault.number}"
    page = _Page(photographs, out, fault)
    statuses: list[int] = []
    for step in range(_STEPS if page.port else 0):
        number = step % _PHOTOGRAPHS
        statuses.append(page.save(number, page.get(number)[0], step + 1.0))
        if statuses[-1] == 0:  # a killed process may count as alive for a moment
            break
    ended = page.end()
    faults: list[str] = []
    if fault.point in DEADLY:
        if ended.status != -signal.SIGKILL:
            faults.append(f"{what}: was not killed: {ended.said[-200:]}")
    elif fault.number < 2:  # at the start
        if ended.status != EXIT_FAILED or ended.crashed:
            faults.append(f"{what}: ended with {ended.status}: {ended.said[-200:]}")
    elif statuses.count(507) != 1 or statuses.count(200) != _STEPS - 1 or ended.status != EXIT_OK:
        faults.append(f"{what}: {statuses}, ended with {ended.status}: {ended.said[-200:]}")
    return faults + _reopened(what, page)


def _reopened(what: str, before: _Page) -> list[str]:
    """All that was acknowledged is there; the last step may have been saved unheard."""
    page, faults = _Page(before.photographs, before.out), []
    for number in range(_PHOTOGRAPHS):
        seconds = page.get(number)[1]
        if seconds not in (before.acknowledged.get(number, 0), before.asked.get(number, 0)):
            faults.append(f"{what}: {seconds} s of {number}, not {before.acknowledged}")
    ended = page.end()
    if ended.status != EXIT_OK:
        faults.append(f"{what}: opened again, ended with {ended.status}: {ended.said[-200:]}")
    if len(read_manifest(manifest_path(before.out)).samples) != _PHOTOGRAPHS:
        faults.append(f"{what}: the manifest is not whole")
    return faults + [f"{what}: {path.name} is left" for path in before.out.parent.glob(".*.tmp")]


def _two_people(photographs: Path, out: Path) -> list[str]:
    """A second page on the file is refused; two windows count a photograph up together."""
    page, faults, saved = _Page(photographs, out), [], []
    second = run(page.words)
    if second.status != EXIT_FAILED or "another job is writing this file" not in second.said:
        faults.append(f"second page: {second.status}: {second.said[-200:]}")

    def count_up() -> None:
        for _ in range(2 * _STEPS):
            revision, seconds = page.get(0)
            saved.append(page.save(0, revision, seconds + 1))

    windows = [Thread(target=count_up) for _ in range(2)]
    for window in windows:
        window.start()
    for window in windows:
        window.join()
    if page.get(0)[1] != saved.count(200) or {*saved} - {200, 409}:
        faults.append(f"two windows: {page.get(0)[1]} counted of {saved}")
    page.end()
    return faults


def _edited(photographs: Path, out: Path, times: int, seed: int = 0) -> list[str]:
    """A file that was damaged or edited is read, or refused in one line and left as it is."""
    dice, sound, faults = np.random.default_rng(seed), out.read_bytes(), []
    for _ in range(times):
        mutant = _changed(sound, dice)
        out.write_bytes(mutant)
        try:
            saved = open_out(out)
            found, _ = find_photographs(photographs, saved.photographs)
            Storage(out, photographs, found, saved, "mine", "train")
        except UserError as error:
            if "\n" in str(error) or out.name not in str(error):
                faults.append(f"edited: says {error}")
            if out.read_bytes() != mutant:
                faults.append("edited: a file that was refused is overwritten")
        except Exception as error:  # noqa: BLE001 - what the campaign looks for
            faults.append(f"edited: {error!r} of {mutant[:2000]!r}")
    return faults


def _changed(sound: bytes, dice: np.random.Generator) -> bytes:
    """One random change: cut, a byte, a line left out, or another value."""
    place, kind = int(dice.integers(len(sound))), int(dice.integers(5))
    if kind == 0:
        return sound[:place]
    if kind == 1:
        return sound[:place] + bytes([int(dice.integers(256))]) + sound[place + 1 :]
    if kind == 2:
        lines = sound.splitlines(keepends=True)
        del lines[int(dice.integers(len(lines)))]
        return b"".join(lines)
    values = list(re.finditer(rb'(?<=: )(?:"[^"\n]*"|[\w.+-]+)|(?<=  )[\d.]+(?=,?\n)', sound))
    chosen = values[int(dice.integers(len(values)))]
    return sound[: chosen.start()] + str(dice.choice(_ODD)).encode() + sound[chosen.end() :]
