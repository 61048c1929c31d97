"""A15: what a bomb costs, decoded in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from tests.reliability.figures import Figure, judged
from tests.reliability.wrong_bytes import DAMAGED

_MAX_MB, _MAX_SECONDS = 1000.0, 0.5


def bombs_are_cheap(work: Path) -> Figure:
    """Decode every bomb in a fresh process: its largest resident size, its time, its reason."""
    dice = np.random.default_rng(0)
    faults: list[str] = []
    worst_mb = worst_seconds = 0.0
    names = [name for name in DAMAGED if "bomb" in name or "70000" in name]
    for name in names:
        ending, make, reasons = DAMAGED[name]
        path = work / f"{name}.{ending}"
        path.write_bytes(make(dice))
        reason, seconds, mb = _in_a_child(path)
        worst_mb, worst_seconds = max(worst_mb, mb), max(worst_seconds, seconds)
        if reason not in reasons:
            faults.append(f"{name}: {reason!r}, not one of {reasons}")
        if mb > _MAX_MB or seconds > _MAX_SECONDS:
            faults.append(f"{name}: {mb:.0f} MB, {seconds:.2f} s")
    reached = f"{len(names)} bombs: at most {worst_mb:.0f} MB and {worst_seconds:.2f} s CPU each"
    return judged("A15", "bombs: below 1 GB and 0.5 s each", reached, faults)


def _in_a_child(path: Path) -> tuple[str, float, float]:
    """Why the file was rejected, processor seconds, peak of the resident size in MB."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.reliability.bombs", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    if done.returncode != 0:
        return f"died with {done.returncode}: {done.stderr[-200:]}", 0, 0
    reason, seconds, mb = json.loads(done.stdout)
    return reason, seconds, mb


def main(words: Sequence[str]) -> None:
    """Decode one file and print what it cost; processor time, for the machine may be busy."""
    began, reason = time.process_time(), "accepted"
    try:
        images.read_image(words[0])
    except RejectedInput as error:
        reason = error.reason
    seconds = time.process_time() - began
    # Not ru_maxrss: that begins with the size of the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps([reason, seconds, peak]))


if __name__ == "__main__":
    main(sys.argv[1:])
