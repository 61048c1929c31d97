"""A wrong command line or configuration is one line that says what to do."""

import os
from pathlib import Path

import pytest

from boxpromptiml.cli import main
from boxpromptiml.cli.messages import one_line, suggestion
from data_prep.__main__ import main as data_prep

MISTAKES = {
    "fit --data.trian=3": "--data.trian=3; did you mean --data.train?",
    "fit --config bad.yaml": "option 'data.trian'; did you mean --data.train?",
    "fit --config nested.yaml": "'backbon'; did you mean backbone?",
    "fit --config trainer.yaml": "'trainer.max_epoch'; did you mean --trainer.max_epochs?",
    "fit --config twice.yaml": "the key 'seed' is given twice",
    "fit --config aliases.yaml": "aliases (*a) are not supported",
    "fit --trainer.max_epochs=abc": "trainer.max_epochs: expected int, got 'abc'",
    "fit --data.supervision=psuedo": "expected one of 'mask', 'pseudo', 'box'",
    "fit --config nofile.yaml": "File does not exist",
    "fit --model.studen.backbone=x": "studen",
    "fit --trainer.callbacks=EarlyStoping": "EarlyStoping",
    "fit extra": "unrecognized arguments: extra",
    "localize --images x --out y --treshold 3": "did you mean --threshold?",
    "localize --checkpoint c --images x --out y --threshold abc": "threshold: expected float, got",
    "localize --checkpoint c --image x --out y": "did you mean --images?",
    "localize --images x": "required: out",
    "evaluate --pred x --manifest m --out y": "did you mean --predictions?",
    "evaluate --predictions x --manifest m --output y": "did you mean --out?",
    "lokalize --images x": "no command 'lokalize'; did you mean 'localize'?",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("data: {trian: [a]}")
    (tmp_path / "trainer.yaml").write_text("trainer: {max_epoch: 3}")
    (tmp_path / "twice.yaml").write_text("data:\n  seed: 1\n  seed: 2\n")
    (tmp_path / "aliases.yaml").write_text("data: {train: &a [x], val: *a}")
    (tmp_path / "nested.yaml").write_text(
        "model: {class_path: DistillTask, init_args: {student: {backbon: x}}}"
    )
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("command", "said"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert len(line) < 800


def test_a_mistyped_job_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert data_prep(["psuedo-masks"]) == 2
    assert "did you mean 'pseudo-masks'?" in capsys.readouterr().err


def test_a_logger_without_its_package_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning")
    for package in ("tensorboard", "tensorboardX"):
        if __import__("importlib.util").util.find_spec(package):
            pytest.skip(f"{package} is installed")
    words = ["fit", "--trainer.logger=TensorBoardLogger", f"--trainer.default_root_dir={tmp_path}"]
    assert main(words) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert lines == [
        "error: Neither `tensorboard` nor `tensorboardX` is available. Try `pip install`ing either."
    ]


def test_long_values_are_cut() -> None:
    assert len(one_line("unrecognized arguments: " + "x" * 10_000, [])) < 700


def test_nothing_is_suggested_for_what_is_like_nothing() -> None:
    assert one_line("unrecognized arguments: --zzz", ["--threshold"]).endswith("--zzz")
    assert not suggestion("zzz", ["fit", "localize"])


LOCALIZE = "localize --images x --out y"
FORGERIES = "data_prep forgeries --images x --out y"
PSEUDO = "data_prep pseudo-masks --manifest x --out y"
OUT_OF_RANGE = {
    LOCALIZE: {"batch_size": "0 -1", "threads": "0 -1", "threshold": "nan -1 2", "fpr": "nan",
               "decode_seconds": "0 -1 nan", "max_pixels": "0 -1"},
    "robustness --manifest x --out y": {"batch_size": "0 -1", "threshold": "nan 2", "seed": "-1"},
    "calibrate --manifest x": {"batch_size": "0 -1"},
    "evaluate --predictions x --manifest x --out y": {"threshold": "nan 2", "resamples": "0 -1",
                                                      "seed": "-1"},
    "study --file x": {"jobs": "0 -1"},
    "fit": {"data.batch_size": "0 -1", "data.eval_batch_size": "0 -1", "data.num_workers": "-1",
            "model.lr": "-1 nan inf", "model.weight_decay": "-1", "model.warmup": "-1",
            "model.dice_weight": "nan -1", "model.threshold": "nan"},
    f"{FORGERIES} --count 1": {"seed": "-1", "authentic": "-1",
                               "quality": "0 200", "max_side": "0 -1", "min_side": "0 -1",
                               "num_workers": "-1 2000", "show": "-1"},
    FORGERIES: {"count": "0 -1"},
    "data_prep boxes --manifest x --out y.jsonl": {"looseness": "nan -1", "tightness": "nan -1 2",
                                             "merge": "nan -1", "overlook_area": "nan -1",
                                             "overlook_chance": "nan 2", "seed": "-1"},
    PSEUDO: {"jitter": "nan", "min_score": "nan", "shard": "-1 5", "num_workers": "2000"},
    "data_prep check --manifest x --out y": {"num_workers": "-1 2000"},
    "data_prep import --dataset folder --source x --out y.jsonl": {"mask_threshold": "-1 255"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (command, option, value)
        for command, options in OUT_OF_RANGE.items()
        for option, values in options.items()
        for value in values.split()
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_is_read(
    command: str, option: str, value: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command.split(), f"--{option}={value}"]
    assert (data_prep(words[1:]) if words[0] == "data_prep" else main(words)) in (1, 2)
    said = capsys.readouterr().err
    name = option.rpartition(".")[2]
    if name == "decode_seconds":
        name = "seconds"
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert name in said
    assert "errors.pydantic.dev" not in said


@pytest.mark.parametrize("command", ["fit", "localize --images x --out y"])
def test_a_configuration_that_is_no_text_is_one_line(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "latin.yaml").write_bytes("# für alle".encode("latin-1"))
    os.mkfifo(folder / "pipe.yaml")
    for name, reason in (("latin.yaml", "is not UTF-8 text"), ("pipe.yaml", "no regular file")):
        assert main([*command.split(), f"--config={name}"]) == 1
        assert main([*command.split(), "--config", name]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 2
        assert said.count(f"error: {name}: ") == 2
        assert reason.replace("no regular", "not a regular") in said


@pytest.mark.parametrize(
    "words",
    [
        [*LOCALIZE.split(), f"--threshold=1{'0' * 400}"],
        ["evaluate", "--predictions=x", "--manifest=x", "--out=y", "--threshold", f"-1{'0' * 400}"],
        ["fit", f"--model.lr=1{'0' * 5000}"],
        [*LOCALIZE.split(), "--segmenter", '["a",' + "[" * 50_000],
        ["localize", "--images", "x", "--out", "y" * 100_000],
        ["complexity", "--out="],
        ["annotate", "--images", ".", "--out="],
        ["info", "x" * 100_000],
        ["x" * 100_000],
    ],
    ids=range(9),
)
def test_what_nobody_means_is_one_short_line(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "x.jpg").touch()
    assert main(words) in (1, 2)
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said
    assert len(said) < 3000
