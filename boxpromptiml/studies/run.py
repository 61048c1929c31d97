"""`boxpromptiml study`: one training per variant and seed, scored in the same way, in one table.

A study is a YAML file: an experiment, settings that all variants share, and what each variant
changes. Every training is a separate process with its own run folder, so an interrupted study
resumes where it was, and each run can be opened, reported and repeated alone.
"""

import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import IO

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from boxpromptiml.errors import EXIT_FAILED, EXIT_OK, UserError
from boxpromptiml.evaluation.runs import read_state, score_run
from boxpromptiml.io.experiments import find_experiment
from boxpromptiml.io.files import remove_temporaries, write_json
from boxpromptiml.io.options import AtLeastOne
from boxpromptiml.io.outputs import STUDY
from boxpromptiml.io.processes import child_environment, python_command
from boxpromptiml.io.progress import note
from boxpromptiml.io.strict_json import read_as, read_json
from boxpromptiml.records import Split
from boxpromptiml.studies.plan import (
    TRAINER_VERBS,
    Study,
    Training,
    plan_trainings,
    read_study,
    training_fingerprint,
    variant_folder,
)
from boxpromptiml.studies.table import StudyTable, VariantScores


class Children:
    """The running child processes; none outlives the study, even if it is killed."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._starting = Lock()

    def run(self, words: Sequence[str], log: Path) -> int:
        """Run `python -m WORDS`, append its output to a file, return its exit status.

        Raises:
            UserError: After `stop`, if a word cannot be given to a process, or if the log is a
                link, a pipe or a device.
        """
        with _appended(log) as stream:
            process = self._start(words, stream)
            status = process.wait()
            self._running.discard(process)  # not after an exception: `stop` has to end it
            return status

    def _start(self, words: Sequence[str], stream: IO[bytes]) -> subprocess.Popen[bytes]:
        with self._starting:  # so that `stop` misses none
            if self._stopped:
                raise UserError("stopped before it began")
            try:
                process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                    python_command("-m", *words), stdout=stream, stderr=subprocess.STDOUT,
                    env=child_environment(),
                )  # fmt: skip
            except ValueError as error:  # NUL or a lone surrogate in a word
                raise UserError(f"{' '.join(words)!r} cannot be started: {error}") from error
            self._running.add(process)
        return process

    def stop(self) -> None:
        """Terminate all processes, wait for their end and start no others.

        Trainings save a checkpoint first. Another signal in the meantime, which raises an exception
        here, kills them.
        """
        with self._starting:
            self._stopped = True
        running = list(self._running)
        for process in running:
            process.send_signal(signal.SIGTERM)
        try:
            for process in running:
                process.wait()
        except BaseException:
            for process in running:
                process.kill()
                process.wait()
            raise


def _appended(log: Path) -> IO[bytes]:
    """Open a log for appending, never through a link, and without waiting for a pipe's reader."""
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        stream = os.fdopen(os.open(log, flags, 0o666), "ab")
    except OSError as error:
        raise UserError(f"{log}: cannot be written: {error.strerror}; move it") from error
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise UserError(f"{log}: is not a regular file; move it")
    return stream


@contextmanager
def children_die_with_us() -> Iterator[Children]:
    """Child processes that are stopped when an exception, Ctrl-C or SIGTERM ends the block.

    Raises:
        SystemExit: With status 143, on SIGTERM.
    """
    children = Children()

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield children
    except BaseException:
        children.stop()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


_STATE = "study_run.json"


@dataclass(frozen=True)
class State:
    """State of a training of a study, as stored in its folder."""

    signature: str  # fingerprint of what it was started with
    finished: bool
    words: list[str]  # of its command line


_STATE_TYPE = TypeAdapter(State)


def study(
    file: Path,
    out: Path | None = None,
    seeds: list[int] | None = None,
    only: list[str] | None = None,
    jobs: AtLeastOne = 1,
    split: Split = "test",
    trust: list[str] | None = None,
) -> int:
    """Train and score every variant of a study, and write one table with 95 % intervals.

    Writes OUT/VARIANT/seed_N/ (a run's folder each), study.json, study.md and study.png. Run the
    same command again to resume, or to add variants and seeds; finished trainings are not repeated.
    The last epoch is scored, so no checkpoint is chosen on the images of the table.

    Args:
        file: The study's file, or the name of a packaged one, such as studies/supervision.
        out: Folder to write; runs/studies/NAME by default.
        seeds: Seeds to use instead of the file's.
        only: Names of the variants to train; the table holds all that are finished.
        jobs: Number of trainings at a time.
        split: Which images to score.
        trust: Modules or classes that the experiments may name besides ours; their code is run. A
            study's file cannot set this itself.

    Raises:
        UserError: If the file is wrong, or a command of its `prepare` fails.
    """
    file = Path(find_experiment(str(file)))
    plan = read_study(file, trusted=bool(trust))
    folder = out or Path("runs/studies") / file.stem
    trainings = plan_trainings(plan, folder, seeds or plan.seeds)
    if unknown := sorted(set(only or []) - set(plan.variants)):
        raise UserError(f"--only {unknown}: no such variant; {file} has {sorted(plan.variants)}")
    wanted = [t for t in trainings if not only or t.variant in only]
    trusting = [f"--trust={name}" for name in trust or []]
    STUDY.mark(folder)
    with children_die_with_us() as children:
        for number, command in enumerate(plan.prepare):
            _prepare(command, folder / "prepare" / f"{number}.json", children, trusting)
        failed = _run_all(
            wanted,
            jobs,
            children,
            lambda training: _train(training, children, trusting),
            lambda training: _score(training, split, folder, plan),
        )
    table = _table(plan, folder, split)
    table.write(folder)
    sys.stdout.write(table.markdown() + f"\n{folder}/study.md\n")
    for line in failed:
        sys.stderr.write(f"failed: {line}\n")
    return EXIT_FAILED if failed else EXIT_OK


def _prepare(command: str, marker: Path, children: Children, trusting: list[str]) -> None:
    """Run a command that makes data, unless it has been run before and its output exists."""
    program, *words = shlex.split(command)
    if program == "boxpromptiml" and words and words[0] in TRAINER_VERBS:
        words += trusting
    spelt = [part for word in words for part in word.split("=", 1)]  # --out=X as --out X
    made = [Path(value) for option, value in pairwise(spelt) if option == "--out"]
    ran = marker.exists() and read_json(marker) == {"command": command}
    if ran and all(path.exists() for path in made):
        return
    note(f"preparing: {command}")
    log = marker.with_suffix(".log")
    if status := children.run([program, *words], log):
        raise UserError(f"preparing failed with status {status}: {command}\nsee {log}")
    write_json(marker, {"command": command})


def _score(training: Training, split: Split, folder: Path, plan: Study) -> None:
    """Score one training and update the table, which is read while a long study runs."""
    score_run(training.folder, split, "last")
    _table(plan, folder, split).write(folder)


def _run_all(
    trainings: list[Training],
    jobs: int,
    children: Children,
    train: Callable[[Training], None],
    score: Callable[[Training], None],
) -> list[str]:
    """Train and score all; returns a line for each training that failed."""
    scoring = Lock()

    def one(training: Training) -> str | None:
        training.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(training.folder / ".lock", timeout=0):
                remove_temporaries(training.folder)  # of a study that was killed
                train(training)
                with scoring:
                    score(training)
        except Timeout:
            return f"{training.folder}: another study is running there; run this one again later"
        except UserError as error:
            return f"{training.variant}, seed {training.seed}: {error}"
        note(f"finished: {training.variant}, seed {training.seed}")
        return None

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return [line for line in pool.map(one, trainings) if line]
        except BaseException:  # leaving the block would wait for hours
            children.stop()
            raise


def _train(training: Training, children: Children, trusting: list[str]) -> None:
    """Run `fit`, from the last checkpoint if there is one, unless the training is finished."""
    state_file, last = training.folder / _STATE, training.folder / "checkpoints" / "last.ckpt"
    wanted = training_fingerprint(training)
    state = read_as(_STATE_TYPE, state_file) if state_file.exists() else None
    if state is None and (last.exists() or (training.folder / "config.yaml").exists()):
        raise UserError(
            f"{training.folder}: a run is there, and not of this study as far as one can tell; "
            "move it, or choose another --out"
        )
    if state and state.signature != wanted:
        raise UserError(
            f"{training.folder} was trained with other settings or data; delete it, or choose "
            "another --out"
        )
    if state and state.finished:
        return
    write_json(state_file, asdict(State(wanted, False, training.words)))
    resume = [f"--ckpt_path={last}"] if last.exists() else []
    note(f"training: {training.variant}, seed {training.seed}")
    log = training.folder / "fit.log"
    words = [*training.words, "--trainer.enable_progress_bar=false", *resume, *trusting]
    status = children.run(["boxpromptiml", *words], log)
    if status:
        raise UserError(f"`fit` ended with status {status}; see {log}")
    write_json(state_file, asdict(State(wanted, True, training.words)))


def _table(plan: Study, folder: Path, split: Split) -> StudyTable:
    """The finished variants, in the order of the file."""
    variants = []
    for name, variant in plan.variants.items():
        runs = variant_folder(folder, name, variant).glob("seed_*")
        seeds = {
            int(run.name.removeprefix("seed_")): run / "evaluation" / split / "last"
            for run in runs
            if re.fullmatch(r"seed_\d+", run.name)
        }
        scored = {seed: path for seed, path in seeds.items() if read_state(path) is not None}
        if scored:
            variants.append(VariantScores.read(name, variant.what, scored))
    return StudyTable(plan.title, plan.reference, split, tuple(variants))
