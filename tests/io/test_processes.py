"""A child ends with its parent, however that one ends and whatever the child is doing."""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boxpromptiml.io import processes
from boxpromptiml.io.processes import (
    child_environment,
    environment_for_children,
    python_command,
    start_server,
    stop_server,
)
from tests.helpers.processes import alive, wait_for

CHILD = """
import signal, sys, time
from pathlib import Path
from boxpromptiml.io import processes
processes._SECONDS = 1
def end(number, frame):
    Path(sys.argv[1] + ".signal").write_text(str(number))
    if "deaf" not in sys.argv:
        sys.exit()
signal.signal(signal.SIGTERM, end)
processes.end_with_parent()
Path(sys.argv[1] + ".new").write_text(str(processes.os.getpid()))
Path(sys.argv[1] + ".new").rename(sys.argv[1])
time.sleep(60)
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
from boxpromptiml.io.processes import child_environment
subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], env=child_environment())
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("rank", "deaf", "signalled"),
    [(None, False, True), (None, True, True), ("0", False, True), ("1", True, False)],
)
def test_a_child_ends_when_its_parent_is_killed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rank: str | None,
    deaf: bool,
    signalled: bool,
) -> None:
    """Also if it goes on after SIGTERM; other ranks than the first get no time to save."""
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    started = tmp_path / "started"
    words = [CHILD, str(started), *(["deaf"] if deaf else [])]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *words])
    try:
        assert wait_for(started.exists, 60)
        child = int(started.read_text())
        assert alive(child)
        assert not (tmp_path / "started.signal").exists()
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert wait_for(lambda: not alive(child), 60)
    assert (tmp_path / "started.signal").exists() == signalled


def test_a_child_ends_if_its_parent_ended_before_it_looked(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    environment = child_environment() | {"BOXPROMPTIML_CHILD_OF": str(gone.pid)}
    words = [sys.executable, "-c", CHILD, str(tmp_path / "started")]
    child = subprocess.run(words, env=environment, check=False, timeout=50)
    assert child.returncode == 0
    assert (tmp_path / "started.signal").read_text() == str(int(signal.SIGTERM))


def test_a_process_that_is_nobodys_child_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a variable that it inherited past its parent; torchrun's workers have a parent."""
    called: list[int] = []
    monkeypatch.setattr(processes, "_watch", called.append)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.delenv("BOXPROMPTIML_CHILD_OF", raising=False)
    processes.end_with_parent()
    for name in (str(os.getpid()), "nonsense"):
        monkeypatch.setenv("BOXPROMPTIML_CHILD_OF", name)
        processes.end_with_parent()
    assert not called
    monkeypatch.setenv("BOXPROMPTIML_CHILD_OF", str(os.getppid()))
    processes.end_with_parent()
    monkeypatch.delenv("BOXPROMPTIML_CHILD_OF")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    processes.end_with_parent()
    assert called == [os.getppid()] * 2


def test_the_environment_for_children_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/of/the/person")
    monkeypatch.delenv("BOXPROMPTIML_CHILD_OF", raising=False)
    before = dict(os.environ)
    with environment_for_children():
        assert os.environ["PYTHONPATH"].startswith("/of/the/person:")
        assert os.environ["BOXPROMPTIML_CHILD_OF"] == str(os.getpid())
    assert dict(os.environ) == before


def test_a_server_is_given_its_settings_and_stopped() -> None:
    program = "import sys; sys.stdout.write(sys.argv[1]); sys.stdout.flush(); sys.stdin.read()"
    process = start_server(program, {"limit": 3})
    assert process.stdout is not None
    assert process.stdout.read(12) == b'{"limit": 3}'
    stop_server(process)
    assert process.returncode == -signal.SIGKILL
    stop_server(process)  # no effect


def test_a_server_ends_with_its_parent_even_in_an_endless_loop(tmp_path: Path) -> None:
    busy = "import os, sys; open(sys.argv[1][1:-1], 'x').close()\nwhile True: pass"
    program = (
        "import sys, time; from boxpromptiml.io.processes import start_server; "
        f"print(start_server({busy!r}, sys.argv[1]).pid, flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "busy")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        assert wait_for((tmp_path / "busy").exists, 60)
        assert alive(server)
        parent.kill()
    assert wait_for(lambda: not alive(server), 60)


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept() -> None:
    """A buffer of 4096 pages costs page faults the first time only."""
    program = """
import resource
from boxpromptiml.io.processes import keep_freed_memory
keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(2**24).replace(b"a", b"b")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run(python_command("-c", program), capture_output=True, check=True, text=True)
    first, again = map(int, done.stdout.split())
    assert first > 4000
    assert again < 100
