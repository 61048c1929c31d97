"""Workers of a pseudo-mask job that was killed: they end at once, however they were started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.grabcut import GrabCutTeacher
from boxpromptiml.teachers.pseudo_masks import run_job
from tests.helpers.processes import alive, wait_for

# Its workers would sleep on: PyTorch's own watch looks between two images only.
PROGRAM = """
import multiprocessing, os, sys, time
from pathlib import Path
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.pseudo_masks import run_job

class Sleeping:
    settings = {"name": "sleeping", "settings": {}}

    def propose(self, image, boxes):
        (Path(sys.argv[2]).parent / f"asleep-{os.getpid()}").touch()
        time.sleep(60)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    run_job(read_manifest(sys.argv[3]), Path(sys.argv[2]), Sleeping(), Consensus(), 2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_they_end_with_the_job_and_its_claim_is_free(
    data_root: Path, tmp_path: Path, method: str
) -> None:
    program, out, train = tmp_path / "job.py", tmp_path / "out", data_root / "train.jsonl"
    program.write_text(PROGRAM)
    job = subprocess.Popen(
        [sys.executable, program, method, out, train], env=os.environ, stderr=subprocess.DEVNULL
    )
    try:
        assert wait_for(lambda: len(list(tmp_path.glob("asleep-*"))) == 2, 120)
        workers = [int(path.name.partition("-")[2]) for path in tmp_path.glob("asleep-*")]
        assert all(map(alive, workers))
    finally:
        job.kill()
        job.wait()
    try:
        assert wait_for(lambda: not any(map(alive, workers)), 5), "the workers live on"
    finally:
        for worker in filter(alive, workers):
            os.kill(worker, signal.SIGKILL)
    assert run_job(read_manifest(train), out, GrabCutTeacher(), Consensus(copies=2))["made"] == 6
