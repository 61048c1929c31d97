"""Work on many items in several processes, with results in order and progress shown."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from boxpromptiml.errors import UserError
from boxpromptiml.io.ray_engine import RayEngine, ray_results

Item = TypeVar("Item")
Result = TypeVar("Result")

_SECONDS_PER_LINE = 10.0  # of progress where standard error is no terminal
_RAY_CHUNK = 8  # items; a call costs Ray about a millisecond
_AHEAD = 4  # chunks a worker that are begun or finished before their turn; bounds the memory


def parallel(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    title: str,
    total: int | None = None,
    chunk: int = 1,
    ray: RayEngine | None = None,
) -> Iterator[Result]:
    """Do `work` on every item and yield the results in the order of the items, with progress.

    Memory is bounded: a worker runs at most a few chunks ahead of the caller. A caller may stop
    early; chunks under way are then finished, so that no file is left half written. Workers end
    with this process, however it ends.

    Args:
        work: Called in the workers; must be picklable, and so must items and results. An exception
            that it raises is raised here.
        items: The inputs.
        workers: Worker processes; 0 does the work in this process.
        title: Name of the work, such as `resizing`, shown beside the progress.
        total: Number of results that the caller will consume; all by default.
        chunk: Items sent to a worker at once; more than 1 pays off below 1 ms per item.
        ray: Run the workers with Ray, as many as there is room for if `workers` is 0.

    Raises:
        UserError: If `workers` is negative, or a worker was killed (with Ray: again and again), or
            Ray cannot be used.
    """
    if workers < 0:
        raise UserError(f"num_workers must be 0 or more, got {workers}")
    total = len(items) if total is None else total
    if ray is not None:
        results = ray_results(work, items, workers, max(chunk, _RAY_CHUNK), ray)
        yield from track(results, title, total)
        return
    if not workers:
        yield from track(map(work, items), title, total)
        return
    context = multiprocessing.get_context()
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, _start_worker, (work, stop))
    try:
        pool.submit(int)  # starts the processes now: the display is a thread, and threads and fork
        results = _in_order(pool, items, workers * _AHEAD, chunk)  # do not go together
        yield from track(results, title, total)
    except BrokenProcessPool as error:
        raise UserError(
            f"{title}: a worker was killed, most likely for want of memory; run the same command "
            "again, with fewer --num_workers"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def track(results: Iterable[Result], title: str, total: int) -> Iterator[Result]:
    """Yield results and show count, speed and remaining time on standard error.

    Progress is a bar in a terminal, and a line every ten seconds elsewhere, as in a job's log;
    nothing where messages of level INFO are not shown (`-q`).

    Args:
        results: The results to pass through.
        title: Name of the work.
        total: Number of results.
    """
    if is_quiet():
        yield from results
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _in_lines(results, title, total)
        return
    columns = (
        TextColumn(title, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total, rate="")
        for result in results:
            speed = progress.tasks[0].speed
            progress.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")
            yield result


def note(text: str) -> None:
    """Write a line about the state of a job to standard error, unless `-q` was given."""
    if not is_quiet():
        sys.stderr.write(f"{text}\n")


def is_quiet() -> bool:
    """Whether `-q` was given."""
    return logging.getLogger("boxpromptiml").level > logging.INFO


def _in_lines(results: Iterable[Result], title: str, total: int) -> Iterator[Result]:
    start = said = time.monotonic()
    for count, result in enumerate(results, 1):
        now = time.monotonic()
        if now - said >= _SECONDS_PER_LINE:
            sys.stderr.write(f"{title} {count}/{total}, {count / (now - start):.1f}/s\n")
            said = now
        yield result


def _in_order(
    pool: ProcessPoolExecutor, items: Sequence[Any], ahead: int, chunk: int
) -> Iterator[Any]:
    """Yield the pool's results in order, working at most `ahead` chunks ahead of the caller."""
    waiting: deque[Future[list[Any]]] = deque()
    for start in range(0, len(items), chunk):
        waiting.append(pool.submit(_do, list(items[start : start + chunk])))
        if len(waiting) == ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


_work: Callable[[Any], Any]  # of this worker
_stop: Event


def _start_worker(work: Callable[[Any], Any], stop: Event) -> None:
    """Set up a worker: it ends with its parent, which alone handles Ctrl-C while it is idle."""
    global _work, _stop
    _work, _stop = work, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "torch" in sys.modules:  # the workers are the threads
        sys.modules["torch"].set_num_threads(1)
    job = multiprocessing.parent_process()
    if job is not None:
        threading.Thread(target=_end_after, args=(job,), daemon=True).start()


def _end_after(job: BaseProcess) -> None:
    job.join()
    os._exit(1)


def _do(items: list[Any]) -> list[Any]:
    """Work on one chunk; Ctrl-C interrupts it as it would in the parent process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return [] if _stop.is_set() else [_work(item) for item in items]
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
