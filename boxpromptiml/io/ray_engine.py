"""Work on many items with Ray (https://docs.ray.io), on this machine or on a cluster.

Plain actors, not Ray Data: that needs Arrow and pandas, turns items into tables and their order
into an option, while its checkpoints repeat what our files already say, namely which items are
done. An actor that dies, alone or with its node, is replaced, and its items are done again.
"""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from boxpromptiml.errors import UserError

_AHEAD = 4  # chunks a worker that are begun or finished before their turn; bounds the memory
_MAX_DEATHS = 3  # of workers at one chunk, or in a row before they are ready
_PATIENCE = 10.0  # seconds for a cluster's machine to answer; Ray tries for minutes
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # RFC 9113, 3.4
_OBJECT_STORE = 200_000_000  # bytes of shared memory, on one machine; results are small
# Without the first, Ray would replace 127.0.0.1 by this machine's address in its network, and would
# listen there; the second keeps out other users of this machine, with a token of each process.
_ON_THIS_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}


@dataclass(frozen=True)
class RayEngine:
    """Where Ray runs.

    Attributes:
        address: Of a running cluster, as `ray.init` takes it, such as `auto`; None: Ray is started
            on this machine, for this process alone, and stopped at the end.
        gpus_per_worker: Fraction or number of GPUs that a worker has for itself.
    """

    address: str | None = None
    gpus_per_worker: float = 0.0


EngineName = Literal["processes", "ray"]


def chosen_engine(
    name: EngineName, address: str | None, gpus_per_worker: float = 0.0
) -> RayEngine | None:
    """What the options --engine, --address and --gpus_per_worker of a command choose.

    None stands for this machine's own processes.

    Raises:
        UserError: If `gpus_per_worker` is negative.
    """
    if gpus_per_worker < 0:
        raise UserError(f"--gpus_per_worker must be 0 or more, got {gpus_per_worker}")
    return RayEngine(address, gpus_per_worker) if name == "ray" else None


def ray_results(
    work: Callable[[Any], Any], items: Sequence[Any], workers: int, chunk: int, engine: RayEngine
) -> Iterator[Any]:
    """Do `work` on every item and yield the results in the order of the items.

    Args:
        work: Is pickled once, and must act alike if an item is done twice. Relative paths in it are
            those of the current folder, which every node must see under the same name.
        items: The inputs.
        workers: Number of workers; 0: as many as the cluster has processors or, with
            `gpus_per_worker`, GPUs for.
        chunk: Items that a worker gets at once.
        engine: Where.

    Raises:
        UserError: If Ray is not installed or there is no such cluster, or workers die again and
            again.
    """
    with _connected(engine.address, workers) as ray:
        crew = _Crew(ray, work, engine.gpus_per_worker)
        try:
            yield from crew.results(items, chunk, workers or _room(ray, engine.gpus_per_worker))
        finally:
            crew.dismiss()


class _NoPaths(list[str]):
    """Stays empty: Ray would put the working directory before all else on its workers' path.

    An untrusted numpy.py may lie there beside the photographs.
    """

    def extend(self, paths: Iterable[str]) -> None:
        """Leave `paths` out."""


@contextmanager
def _connected(address: str | None, workers: int) -> Iterator[ModuleType]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported; read at the import, as are
    if address is None:  # the others
        os.environ.update(_ON_THIS_MACHINE)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it but once
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise UserError("--engine ray: install Ray: pip install 'boxpromptiml[ray]'") from error
    own: dict[str, Any] = {}
    if address is not None:
        _require_answer(address)
    else:
        own = {
            "num_cpus": workers or None, "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE, "_node_ip_address": "127.0.0.1",
        }  # fmt: skip
    # Ray's own handler stays after `shutdown`, and processes forked later would not end by SIGTERM.
    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main_thread else None
    job = ray.job_config.JobConfig()
    job._py_driver_sys_path = _NoPaths()
    try:
        ray.init(
            address or "local", job_config=job, logging_level=logging.ERROR, log_to_driver=False,
            **own,
        )  # fmt: skip
    except Exception as error:
        what = "cannot start Ray" if address is None else f"--address {address}: cannot use it"
        raise UserError(f"--engine ray: {what}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _require_answer(address: str) -> None:
    """Require that HOST:PORT, or ray://HOST:PORT, answers in HTTP/2, which Ray speaks."""
    scheme, mark, _ = address.partition("://")
    if mark and scheme != "ray":  # Ray would import a module of that name
        raise UserError(f"--address {address}: must be auto, HOST:PORT or ray://HOST:PORT")
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdecimal():  # such as `auto`
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PATIENCE) as there:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            there.sendall(_GREETING)
            frame = there.makefile("rb").read(4)
    except (OSError, OverflowError) as error:
        raise UserError(f"--engine ray: --address {address}: cannot use it: {error}") from error
    if frame[3:] != b"\x04":  # the first frame of a server says its settings
        raise UserError(f"--engine ray: --address {address}: cannot use it: it is not Ray's")


def _room(ray: ModuleType, gpus: float) -> int:
    """The number of workers that a cluster has room for."""
    there = ray.cluster_resources()
    room = int(there.get("CPU", 0))
    return max(min(room, int(there.get("GPU", 0) / gpus)) if gpus else room, 1)


class _Worker:
    """Runs in a process of its own, on any node."""

    _work: Callable[[Any], Any]

    def begin(self, work: list[Any], folder: str, path: list[str]) -> list[Any]:
        """Fetch the work, from a list of its reference, in a folder that its paths refer to.

        Its modules are looked for where they usually are, and then in the folders of `path`.
        """
        import ray  # noqa: PLC0415

        if not Path(folder).is_dir():
            raise UserError(f"{folder} does not exist on {os.uname().nodename}: share the files")
        os.chdir(folder)
        sys.path.extend(place for place in path if place not in sys.path)
        self._work = ray.get(work[0])
        return []

    def do(self, items: list[Any]) -> list[Any]:
        """Work on one chunk."""
        return [self._work(item) for item in items]


@dataclass
class _Crew:
    """Workers, and what each of them is doing."""

    ray: ModuleType
    work: Callable[[Any], Any]
    gpus: float
    _busy: dict[Any, tuple[Any, int | None]] = field(default_factory=dict)  # worker, chunk's number
    _deaths: Counter[int | None] = field(default_factory=Counter)

    def results(self, items: Sequence[Any], chunk: int, size: int) -> Iterator[Any]:
        """See `ray_results`."""
        hire = self._hiring()
        count = -(-len(items) // chunk)
        todo, finished, turn = deque(range(count)), dict[int, list[Any]](), 0
        idle: list[Any] = []
        for _ in range(min(size, count)):
            hire()
        while turn < count:
            while idle and todo and todo[0] < turn + _AHEAD * size:
                self._give(idle.pop(), todo.popleft(), items, chunk)
            (ref, *_), _ = self.ray.wait(list(self._busy), num_returns=1)
            worker, number = self._busy.pop(ref)
            done = self._answer(ref, number)
            if done is None:
                self.ray.kill(worker)
                if number is not None:
                    todo.appendleft(number)
                hire()
                continue
            idle.append(worker)
            if number is not None:
                finished[number] = done
            while turn in finished:
                yield from finished.pop(turn)
                turn += 1

    def _hiring(self) -> Callable[[], None]:
        kind = self.ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0)(_Worker)
        shared, folder = self.ray.put(self.work), str(Path.cwd())

        def hire() -> None:
            worker = kind.remote()
            self._busy[worker.begin.remote([shared], folder, sys.path)] = (worker, None)

        return hire

    def _give(self, worker: Any, number: int, items: Sequence[Any], chunk: int) -> None:
        part = list(items[number * chunk : (number + 1) * chunk])
        self._busy[worker.do.remote(part)] = (worker, number)

    def _answer(self, ref: Any, number: int | None) -> list[Any] | None:
        """What a worker returns; None if it died."""
        exceptions = self.ray.exceptions
        try:
            done: list[Any] = self.ray.get(ref)
        except exceptions.RayTaskError as error:  # its text is a traceback
            raise error.cause from None
        except exceptions.RayError:
            pass
        else:
            self._deaths.pop(number, None)
            return done
        self._deaths[number] += 1
        if self._deaths[number] >= _MAX_DEATHS:
            raise UserError(
                f"{_MAX_DEATHS} workers died one after the other, most likely for want of memory; "
                "run the same command again, with fewer workers"
            )
        return None

    def dismiss(self) -> None:
        """End the workers; what they were writing is absent or whole."""
        for worker, _ in self._busy.values():
            self.ray.kill(worker)
