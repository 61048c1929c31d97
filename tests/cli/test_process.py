"""Commands in surroundings that are not as usual, and started beside a stranger's files."""

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxpromptiml.cli import main, run
from boxpromptiml.errors import UserError
from boxpromptiml.io import old_names

V1 = Path(__file__).parents[1] / "compat" / "v1"
COMMANDS = {
    "help": "boxpromptiml --help",
    "localize": f"boxpromptiml localize --checkpoint {V1}/student.safetensors --images {V1}/a.png "
    "--out out",
    "check": f"data_prep check --manifest {V1}/manifest.jsonl --out out --verify --num_workers 1",
}


def test_a_reader_that_ends_early_is_no_error(tmp_path: Path) -> None:
    words = f"{shlex.quote(sys.executable)} -m boxpromptiml experiments"
    script = f"set -o pipefail; {{ sleep 0.2; {words}; }} | true"  # nobody reads any more
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (141, "")


def shell(command: str, folder: Path, more: str = "") -> subprocess.CompletedProcess[str]:
    words = f"{shlex.quote(sys.executable)} -m {command} {more}"
    return subprocess.run(
        ["sh", "-c", words], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_all_standard_streams_may_be_closed(command: str, tmp_path: Path) -> None:
    done = shell(command, tmp_path, "<&- >&- 2>&-")
    assert done.returncode == 0
    errors = tmp_path / "out" / "errors.jsonl"
    assert not errors.exists() or not errors.read_text()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_each_standard_stream_may_be_closed(closed: str, tmp_path: Path) -> None:
    done = shell(COMMANDS["check"], tmp_path, closed)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out" / "check.json").read_text())["images"] == 2


@pytest.mark.slow
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xff.png")
    shutil.copy(V1 / "a.png", tmp_path / "a.png")
    shutil.copy(V1 / "a.png", tmp_path / name)
    images = f"--images {tmp_path}/*.png --out {tmp_path}/out$(printf '\\376')"
    done = shell(COMMANDS["localize"].rpartition(" --images")[0], tmp_path, images)
    assert done.returncode == 0, done.stderr
    assert "2 localized, 0 rejected" in done.stdout
    assert len(list((tmp_path / os.fsdecode(b"out\xfe") / "prob").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("module", ["boxpromptiml", "data_prep"])
def test_nothing_is_imported_from_the_working_directory(module: str, tmp_path: Path) -> None:
    for name in ("numpy", "yaml", "typing", "jsonargparse", "pydantic", "multiprocessing"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger ran')")
    command = COMMANDS["localize" if module == "boxpromptiml" else "check"]
    done = shell(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a stranger ran" not in done.stdout + done.stderr


@pytest.mark.slow
def test_what_is_trusted_is_found_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from lightning.pytorch import Callback\nclass Mine(Callback):\n    pass\n"
    )
    (tmp_path / "numpy.py").write_text("raise SystemExit('a stranger ran')")
    done = shell(
        "boxpromptiml fit --trust=mine --trainer.callbacks=mine.Mine --print_config", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "class_path: mine.Mine" in done.stdout


def test_a_path_of_links_in_a_circle_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").symlink_to("a")
    words = ["--dataset=folder", f"--source={tmp_path}/a", f"--out={tmp_path}/m.jsonl"]
    assert main(["data", "import", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


@pytest.fixture
def _level() -> Iterator[None]:
    yield
    for name in ("boxpromptiml", "data_prep"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.usefixtures("_level")
def test_a_deleted_working_directory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert main(["info", "x"]) == 1
    assert "working directory has been deleted" in capsys.readouterr().err


def test_quiet_and_verbose_before_or_after_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    mistake = ["complexity", "--model", "nowhere.ckpt"]  # the option's older name
    for words, lines, traced in (
        (mistake, 2, False),
        (["-q", *mistake], 1, False),
        ([*mistake, "--quiet"], 1, False),
        ([*mistake, "-v"], 3, True),
    ):
        old_names._say.cache_clear()
        assert main(words) == 1
        said = capsys.readouterr().err
        assert ("Traceback" in said) == traced
        assert len(said.splitlines()) == lines or traced
        assert ("write --checkpoint" in said) == (lines > 1)
        assert said.splitlines()[-1].startswith("error: nowhere.ckpt")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_memory_that_runs_out_is_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise error

    assert run(command) == 1
    assert capsys.readouterr().err.startswith("error: there is not enough memory")


def test_what_a_terminal_would_obey_is_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise UserError("x.ckpt: 1 unexpected (\x1b[2J\r\x9bok)")

    assert run(command) == 1
    assert capsys.readouterr().err == "error: x.ckpt: 1 unexpected (\\x1b[2J\\r\\x9bok)\n"
