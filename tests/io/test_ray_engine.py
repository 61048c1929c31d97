"""Ray on this machine: started for a job, and as a cluster of two nodes whose parts are killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxpromptiml.cli import main as boxpromptiml
from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.io.progress import parallel
from boxpromptiml.io.ray_engine import RayEngine, chosen_engine
from data_prep.__main__ import main
from tests.helpers.models import save_student

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="install the extra `ray`")
pytestmark = pytest.mark.slow
# 127.0.0.1 would be replaced by the address of this machine, which a firewall may guard.
_NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "node_ip_address": "127.0.0.2"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one processor each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = signal.getsignal(signal.SIGTERM)  # nodes take it over
    head = _NODE | {"include_dashboard": False}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    made.add_node(**_NODE)
    yield made
    made.shutdown()
    signal.signal(signal.SIGTERM, before)


def content(folder: Path) -> dict[str, bytes]:
    """Everything but the lock and the count of what the last run made."""
    skipped = (".lock", "summary.json")
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in skipped]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


_EMBEDDED = """
import os
from pathlib import Path
from boxpromptiml.io.progress import parallel
from boxpromptiml.io.ray_engine import RayEngine

def listening(item):
    links = [os.readlink(fd) for fd in Path(f"/proc/{os.getppid()}/fd").iterdir()]
    tables = Path("/proc/net/tcp"), Path("/proc/net/tcp6")
    rows = [line.split() for table in tables for line in table.read_text().splitlines()]
    own = [row for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links]
    return [row[1].partition(":")[0] for row in own]

for _ in range(2):  # a second job of one process starts Ray again
    print(*next(parallel(listening, [0], 1, "sockets", ray=RayEngine())))
"""


def test_ray_that_a_job_starts_listens_to_this_machine_alone() -> None:
    script = [sys.executable, "-c", _EMBEDDED]  # Ray keeps its settings for the whole process
    done = subprocess.run(script, check=True, capture_output=True, text=True)
    assert done.stdout.split()
    assert all(address.endswith("0100007F") for address in done.stdout.split())  # 127.0.0.1


def test_workers_import_nothing_from_the_working_directory(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "import pathlib\npathlib.Path('ran').touch()\nraise ImportError\n"
    monkeypatch.chdir(tmp_path)
    for name in ("PIL", "cv2"):
        Path(f"{name}.py").write_text(canary, encoding="utf-8")
    words = ["check", f"--manifest={data_root / 'train.jsonl'}", "--out=out", "--verify=true"]
    command = [sys.executable, "-P", "-m", "data_prep", *words, "--engine=ray", "--num_workers=1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert not Path("ran").exists(), done.stderr
    assert done.returncode == 0, done.stderr


def test_check_writes_the_same(cluster: Any, data_root: Path, tmp_path: Path) -> None:
    words = ["check", f"--manifest={data_root / 'train.jsonl'}", "--verify=true"]
    on_ray = ["--engine=ray", f"--address={cluster.address}"]
    assert main([*words, f"--out={tmp_path / 'ray'}", *on_ray]) == 0
    assert main([*words, f"--out={tmp_path / 'alone'}"]) == 0
    assert content(tmp_path / "ray") == content(tmp_path / "alone")


def squares(notes: Path, kills: int = 0) -> Callable[[int], int]:
    """Work that notes each item and who did it, and kills its worker at item 5 so many times.

    A function within a function is pickled by value: Ray's workers cannot import the tests.
    """

    def work(item: int) -> int:
        (notes / f"{item}-{os.getpid()}").touch()
        if item == 5 and len(list(notes.glob("5-*"))) <= kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if item < 0:
            raise UserError(f"{item} is below 0")
        time.sleep(0.02)
        return item * item

    return work


def test_two_nodes_share_the_work_in_order_and_outlive_workers_and_a_node(
    cluster: Any, tmp_path: Path
) -> None:
    engine, before = RayEngine(cluster.address), signal.getsignal(signal.SIGTERM)
    work = squares(tmp_path, kills=2)
    found = parallel(work, range(100), 0, "squares", ray=engine)
    results = [next(found) for _ in range(10)]
    workers = {path.name.split("-")[1] for path in tmp_path.iterdir()}
    assert len(workers) >= 3  # those that were killed, and the last in their place
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    results += found
    assert signal.getsignal(signal.SIGTERM) is before  # Ray takes it over
    cluster.add_node(**_NODE)
    assert results == [item * item for item in range(100)]
    assert len(list(tmp_path.glob("5-*"))) == 3

    with pytest.raises(UserError, match="-1 is below 0"):
        list(parallel(work, [1, -1, 2], 0, "squares", ray=engine))
    with pytest.raises(UserError, match="3 workers died one after the other"):
        list(parallel(squares(tmp_path, kills=99), [5], 0, "squares", ray=engine))


def test_a_killed_job_goes_on_and_makes_the_bytes_of_one_process(
    cluster: Any, data_root: Path, tmp_path: Path
) -> None:
    out, alone = tmp_path / "ray", tmp_path / "alone"
    words = ["pseudo-masks", f"--manifest={data_root / 'train.jsonl'}", "--copies=9"]
    on_ray = [*words, f"--out={out}", "--engine=ray", f"--address={cluster.address}"]
    first = subprocess.Popen([sys.executable, "-m", "data_prep", *on_ray])
    while first.poll() is None and not list(out.glob("masks/**/*.json")):
        time.sleep(0.05)
    first.kill()
    first.wait()
    assert not (out / "manifest.jsonl").exists()
    before = {path: path.stat().st_mtime_ns for path in out.glob("masks/**/*.json")}
    assert before
    assert main(on_ray) == main([*words, f"--out={alone}"])
    assert all(path.stat().st_mtime_ns == made for path, made in before.items())
    assert content(out) == content(alone)


def kill_workers(address: str) -> int:
    """Kill the workers of the cluster's nodes; their number."""
    killed = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            node = Path("/proc", parent, "cmdline").read_text()
            if (folder / "cmdline").read_text().startswith("ray::_Worker") and address in node:
                os.kill(int(folder.name), signal.SIGKILL)
                killed += 1
        except (OSError, UnicodeDecodeError):
            pass  # it has ended, or is somebody else's
    return killed


def test_localize_outlives_its_workers_and_makes_the_bytes_of_one_process(
    cluster: Any, tmp_path: Path
) -> None:
    checkpoint, photos, out = save_student(tmp_path / "s.ckpt"), tmp_path / "photos", tmp_path / "r"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        images.write_png(photos / f"{number}.png", rng.integers(0, 255, (160, 240, 3), np.uint8))
    (photos / "7.png").write_text("no image")
    words = ["localize", f"--checkpoint={checkpoint}", f"--images={photos}", "--threads=1"]
    on_ray = [f"--out={out}", "--engine=ray", f"--address={cluster.address}"]
    job = subprocess.Popen([sys.executable, "-m", "boxpromptiml", *words, *on_ray])
    while job.poll() is None and not list(out.glob("prob/*.png")):
        time.sleep(0.01)
    assert kill_workers(cluster.address)
    assert job.wait() == 3
    assert boxpromptiml([*words, f"--out={tmp_path / 'alone'}"]) == 3
    assert content(out) == content(tmp_path / "alone")


def test_a_missing_cluster_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--address nowhere: cannot use it"):
        list(parallel(abs, [1], 1, "numbers", ray=RayEngine("nowhere")))
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(UserError, match="must be auto, HOST:PORT or ray://HOST:PORT"):
        list(parallel(abs, [1], 1, "numbers", ray=RayEngine("this://x")))  # a module of Python
    for address in (dead, f"ray://{dead}"):
        with pytest.raises(UserError, match=f"--address {address}: cannot use it: .*refused"):
            list(parallel(abs, [1], 1, "numbers", ray=RayEngine(address)))
    with pytest.raises(UserError, match="--gpus_per_worker must be 0 or more"):
        chosen_engine("ray", None, -1)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_another_server_at_the_address_is_told_at_once(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxpromptiml.io.ray_engine._PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        held = []  # a server that says nothing keeps the connection

        def serve() -> None:
            held.append(server.accept()[0])
            held[0].sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        why = "it is not Ray's" if answer else "timed out"
        with pytest.raises(UserError, match=f"--address {address}: cannot use it: {why}"):
            list(parallel(abs, [1], 1, "numbers", ray=RayEngine(address)))
