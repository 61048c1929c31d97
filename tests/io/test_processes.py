"""A child ends with its parent, however that one ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boxpromptiml.io import processes
from boxpromptiml.io.processes import child_environment, python_command

CHILD = """
import signal, sys, time
from pathlib import Path
from boxpromptiml.io.processes import end_with_parent
def end(number, frame):
    Path(sys.argv[1]).write_text("ended")
    sys.exit()
signal.signal(signal.SIGTERM, end)
end_with_parent()
Path(sys.argv[1]).write_text("started")
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
from boxpromptiml.io.processes import child_environment
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], env=child_environment())
time.sleep(60)
"""


def _wait_for(path: Path, text: str) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.read_text() == text:
            return True
        time.sleep(0.05)
    return False


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    said = tmp_path / "said"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(said)])
    try:
        assert _wait_for(said, "started")
        time.sleep(0.1)
        assert said.read_text() == "started"
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert _wait_for(said, "ended")


def test_a_process_that_is_nobodys_child_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a variable that it inherited past its parent."""
    called: list[int] = []
    monkeypatch.setattr(processes, "_watch", called.append)
    monkeypatch.delenv("BOXPROMPTIML_CHILD_OF", raising=False)
    processes.end_with_parent()
    monkeypatch.setenv("BOXPROMPTIML_CHILD_OF", str(os.getpid()))
    processes.end_with_parent()
    assert not called
    monkeypatch.setenv("BOXPROMPTIML_CHILD_OF", str(os.getppid()))
    processes.end_with_parent()
    assert called == [os.getppid()]


def test_a_child_finds_what_we_find_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a stranger ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "found"))
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "ours.py").write_text("print('ours')")
    command = python_command("-c", "import json, ours")
    done = subprocess.run(
        command, env=child_environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ours\n", "")
