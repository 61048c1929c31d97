"""A whole study on tiny data: trained, stopped, gone on with, refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from boxpromptiml.cli import main
from boxpromptiml.errors import UserError
from boxpromptiml.studies.run import Children, _prepare
from tests.helpers.commands import Command, run
from tests.helpers.processes import alive, children_of, wait_for

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, data_root: Path, **changes: object) -> Path:
    manifests = {f"data.{s}": [f"{data_root}/{s}.jsonl"] for s in ("train", "val", "test")}
    plan = {
        "title": "Tiny",
        "config": str(ROOT / "experiments/native.yaml"),
        "reference": "masks",
        "seeds": [0],
        "prepare": [
            f"data_prep boxes --manifest {data_root}/train.jsonl --out {folder}/boxes.jsonl"
        ],
        "settings": manifests | {
            "trainer.max_epochs": 1, "trainer.check_val_every_n_epoch": 1,
            "trainer.callbacks": None, "trainer.precision": "32-true", "trainer.accelerator": "cpu",
            "model.student.backbone": "mobilenetv3_small_050", "model.pretrained": None,
            "data.input.size": [64, 64], "data.batch_size": 2,
        },
        "variants": {
            "masks": {"what": "masks", "settings": {"data.supervision": "mask"}},
            "boxes": {
                "what": "boxes",
                "settings": {"data.supervision": "box", "data.train": [f"{folder}/boxes.jsonl"]},
            },
        },
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(plan | changes, sort_keys=False))
    return path


def forked(_: Children, words: Sequence[str], log: Path) -> int:
    """`Children.run` without the seconds that a new interpreter takes to import torch."""
    ended = run(words)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(ended.said)
    return ended.status or 0


@pytest.fixture(scope="module")
def done(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished study, with its file."""
    folder = tmp_path_factory.mktemp("study")
    path = write(folder, data_root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Children, "run", forked)
        words = ["study", "--file", str(path), "--out", str(folder / "out"), "--jobs", "2"]
        assert main(words) == 0
    return folder


def test_every_arm_is_a_run_with_an_evaluation_and_a_line(done: Path) -> None:
    found = json.loads((done / "out/study.json").read_text())["variants"]
    assert list(found) == ["masks", "boxes"]
    assert found["boxes"]["pixel_f1"]["count"] == 4
    assert found["masks"]["difference"] is None
    assert found["boxes"]["difference"] is not None
    for variant in found:
        run = done / "out" / variant / "seed_0"
        assert (run / "checkpoints/last.ckpt").is_file()
        assert (run / "evaluation/test/last/per_image.csv").is_file()
        assert len(list((run / "evaluation/test/last/predictions/prob").rglob("*.png"))) == 6


def test_the_second_time_nothing_is_trained_again(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in (done / "out").glob("*/seed_0/checkpoints/*.ckpt")}
    maps = {p: p.stat().st_mtime_ns for p in (done / "out").rglob("*.png") if p.stem != "study"}
    status = main(["study", "--file", str(done / "study.yaml"), "--out", str(done / "out")])
    assert status == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert maps == {p: p.stat().st_mtime_ns for p in maps}
    said = capsys.readouterr()
    assert "training:" not in said.err
    assert "preparing:" not in said.err
    assert "| boxes |" in said.out


def test_an_interrupted_scoring_or_a_stray_folder_costs_nothing(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = done / "out/boxes/seed_1/evaluation/test/last/predictions"
    other.mkdir(parents=True)
    stray = done / "out/boxes/seed_0_old"
    stray.mkdir()
    words = ["study", "--file", str(done / "study.yaml"), "--out", str(done / "out")]
    assert main([*words, "--only", "masks"]) == 0
    assert "| boxes |" in capsys.readouterr().out
    shutil.rmtree(done / "out/boxes/seed_1")
    stray.rmdir()


def test_a_run_of_somebody_else_is_not_taken_for_one_of_the_study(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = done / "out/boxes/seed_2"
    shutil.copytree(done / "out/masks/seed_0", theirs)
    (theirs / "study_run.json").unlink()
    before = {p: p.stat().st_mtime_ns for p in theirs.rglob("*") if p.name != ".lock"}
    words = ["study", "--file", str(done / "study.yaml"), "--out", str(done / "out")]
    assert main([*words, "--only", "boxes", "--seeds=[2]"]) == 1
    assert f"{theirs}: a run is there, and not of this study" in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in before}
    shutil.rmtree(theirs)


def test_what_prepare_made_is_made_again_when_it_is_gone(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = done / "boxes.jsonl"
    before = made.read_bytes()
    made.unlink()
    status = main(["study", "--file", str(done / "study.yaml"), "--out", str(done / "out")])
    assert status == 0
    assert made.read_bytes() == before
    assert "preparing:" in capsys.readouterr().err


def test_two_studies_do_not_train_in_one_folder(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study", "--file", str(done / "study.yaml"), "--out", str(done / "out")]
    with FileLock(done / "out/masks/seed_0/.lock"):
        assert main(words) == 1
    assert "another study is running" in capsys.readouterr().err


def test_other_settings_in_the_same_folder_are_refused_and_the_rest_goes_on(
    done: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(done, data_root)
    plan = yaml.safe_load(path.read_text())
    plan["variants"]["boxes"]["settings"]["model.lr"] = 0.5
    (done / "changed.yaml").write_text(yaml.safe_dump(plan))
    status = main(["study", "--file", str(done / "changed.yaml"), "--out", str(done / "out")])
    said = capsys.readouterr()
    assert status == 1
    assert "trained with other settings or data" in said.err
    assert "| masks |" in said.out


def test_a_training_that_fails_costs_its_own_line_only(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Children, "run", forked)
    plan = yaml.safe_load((done / "study.yaml").read_text())
    plan["variants"] = {
        "masks": plan["variants"]["masks"],
        "broken": {"what": "broken", "settings": {"data.supervision": "nonsense"}},
    }
    plan["prepare"] = []
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))
    out = done / "out"  # masks is finished there
    status = main(["study", "--file", str(tmp_path / "study.yaml"), "--out", str(out)])
    said = capsys.readouterr()
    assert status == 1
    assert "broken, seed 0: `fit` ended with status" in said.err
    assert "nonsense" in (out / "broken/seed_0/fit.log").read_text()


def test_an_output_that_is_gone_is_made_again_however_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Sequence[str]] = []
    monkeypatch.setattr(Children, "run", lambda _, words, log: ran.append(words))
    command = f"data_prep boxes --out={tmp_path}/boxes.jsonl"
    for expected in (1, 2):
        _prepare(command, tmp_path / "0.json", Children(), [])
        assert len(ran) == expected
    (tmp_path / "boxes.jsonl").touch()
    _prepare(command, tmp_path / "0.json", Children(), [])
    assert len(ran) == 2


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_a_word_that_no_process_can_be_given_is_a_mistake(tmp_path: Path, word: str) -> None:
    with pytest.raises(UserError, match="cannot be started"):
        Children().run(["boxpromptiml", word], tmp_path / "log")


def test_a_log_is_no_link_and_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to("victim")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(UserError, match=f"{name}: cannot be written.*move it"):
            Children().run(["boxpromptiml", "--version"], tmp_path / name)
    assert (tmp_path / "victim").read_text() == "mine"


def test_an_unknown_arm_is_refused(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "--file", str(done / "study.yaml"), "--only", "nobody"]) == 1
    assert "no such variant" in capsys.readouterr().err


STUBBORN = """
import os, signal, sys, time
from pathlib import Path
def end(number, frame):
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1], "ended").touch()
    sys.exit()
signal.signal(signal.SIGTERM, end)
Path(sys.argv[1], "new").write_text(str(os.getpid()))
Path(sys.argv[1], "new").rename(Path(sys.argv[1], "started"))
time.sleep(60)
"""
STARTER = """
import sys
from pathlib import Path
from boxpromptiml.studies.run import children_die_with_us
sys.path.insert(0, sys.argv[1])
with children_die_with_us() as children:
    children.run(["stubborn", *sys.argv[1:]], Path(sys.argv[1], "log"))
"""


@pytest.mark.parametrize(("signals", "seconds"), [(1, "1"), (2, "60")])
def test_a_study_ends_after_its_trainings(tmp_path: Path, signals: int, seconds: str) -> None:
    """It waits until a training has saved; a second signal does not."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    words = [sys.executable, "-c", STARTER, str(tmp_path), seconds]
    study = subprocess.Popen(words, cwd=ROOT)
    assert wait_for((tmp_path / "started").exists, 60)
    child = int((tmp_path / "started").read_text())
    for _ in range(signals):
        study.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    assert study.wait(30) == 143
    assert not alive(child)
    assert (tmp_path / "ended").exists() == (signals == 1)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_study_leaves_nothing_training_and_goes_on_where_it_was(
    data_root: Path, tmp_path: Path, how: signal.Signals
) -> None:
    path = write(tmp_path, data_root, prepare=[])
    plan = yaml.safe_load(path.read_text())
    plan["variants"] = {"masks": plan["variants"]["masks"]}
    plan["settings"]["trainer.max_epochs"] = 400
    plan["settings"]["trainer.check_val_every_n_epoch"] = 400
    path.write_text(yaml.safe_dump(plan))
    words = ["boxpromptiml", "study", "--file", str(path), "--out", str(tmp_path / "out")]
    run = tmp_path / "out/masks/seed_0"
    last = run / "checkpoints/last.ckpt"
    study = Command(words)
    deadline = time.monotonic() + 240
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    (training,) = children_of(study.pid)
    study.signal(how)
    assert study.wait(120).status == (128 + how if how == signal.SIGTERM else -how)
    if how == signal.SIGKILL:
        assert wait_for(lambda: not alive(training), 60)  # it notices at once, and saves
    assert not alive(training)
    written = last.stat().st_mtime_ns
    time.sleep(2)  # several epochs, if the training had outlived the study
    assert last.stat().st_mtime_ns == written
    state = json.loads((run / "study_run.json").read_text())
    assert not state["finished"]
    if how == signal.SIGTERM:
        return  # goes on like the other
    study = Command(words)
    while last.stat().st_mtime_ns == written and time.monotonic() < deadline:
        time.sleep(0.2)
    study.signal(signal.SIGTERM)
    study.wait(120)
    log = (run / "fit.log").read_text()
    assert f"Restored all states from the checkpoint at {last}" in log


def test_trust_is_handed_on_from_the_person_alone(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def record(_: Children, words: list[str], log: Path) -> int:
        commands.append(list(words))
        return int(words[1] == "fit" and "--seed_everything=0" in words)

    monkeypatch.setattr(Children, "run", record)
    prepare = [
        f"data_prep boxes --manifest {data_root}/train.jsonl --out {tmp_path}/boxes.jsonl",
        "boxpromptiml fit --config experiments/image_label.yaml",
    ]
    shutil.copy(data_root / "train.jsonl", tmp_path / "boxes.jsonl")
    path = write(tmp_path, data_root, prepare=prepare)
    words = ["study", "--file", str(path), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert not any(word.startswith("--trust") for command in commands for word in command)
    commands.clear()
    shutil.rmtree(tmp_path / "out")
    assert main([*words, "--trust", "mylab.tasks", "mylab.data"]) == 1
    trusting = ["--trust=mylab.tasks", "--trust=mylab.data"]
    assert [command[-2:] == trusting for command in commands] == [False, True, True, True]
