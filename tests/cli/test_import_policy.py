"""A6: no file that a stranger made runs code: checkpoints, weights, configurations.

Every canary leaves a mark when it is unpickled, imported or called. The controls at the end show
that the canaries are alive: the libraries' own ways of reading the same files do run them.
"""

import copy
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonargparse._common as jsonargparse_settings
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from safetensors.torch import save_file

from boxpromptiml import Localizer
from boxpromptiml.cli import lightning, main
from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.io.weights import load_weights
from boxpromptiml.models.configs import StudentConfig
from boxpromptiml.models.sam import load_sam
from boxpromptiml.segmenters.config import SegmenterConfig, build_segmenter
from boxpromptiml.tasks.callbacks import LocalCheckpointIO
from boxpromptiml.tasks.distill import DistillTask
from data_prep.__main__ import main as data_prep

VERBS = ("fit", "validate", "test", "predict")

# Importing it is the first mark, a call of anything in it the second.
MODULE = """
import os
from pathlib import Path
MARKS = Path(os.environ["CANARY_MARKS"])

def fire(*args, **kwargs):
    (MARKS / "called").touch()

(MARKS / "imported").touch()
from lightning.pytorch import Callback, LightningModule

class Task(LightningModule):
    def __init__(self, *args, **kwargs):
        super().__init__()
        fire()

class Evil(Callback):
    def __init__(self, value: int = 1):
        fire()
"""


class Reduced:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(autouse=True)
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of marks; the canary module is importable, jsonargparse as it was before."""
    folder = tmp_path / "marks"
    folder.mkdir()
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "canary.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setenv("CANARY_MARKS", str(folder))
    monkeypatch.delitem(sys.modules, "canary", raising=False)
    before = copy.deepcopy(jsonargparse_settings.parsing_settings)
    yield folder
    sys.modules.pop("canary", None)
    jsonargparse_settings.parsing_settings.clear()
    jsonargparse_settings.parsing_settings.update(before)


@pytest.fixture(scope="module")
def trained(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The command line of a tiny run, and its folder."""
    run = tmp_path_factory.mktemp("run")
    arguments = [
        *(f"--data.{split}=[{data_root}/{split}.jsonl]" for split in ("train", "val", "test")),
        f"--data.predict=[{data_root}/test.jsonl]", "--data.supervision=mask",
        "--model.student.backbone=mobilenetv3_small_050", "--data.input.size=[64,64]",
        "--data.batch_size=4", f"--trainer.default_root_dir={run}", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false", "--trainer.max_epochs=1", "--trainer.logger=false",
        "--trainer.enable_model_summary=false",
    ]  # fmt: skip
    assert main(["fit", *arguments]) == 0
    return run, arguments


def hyper_parameters(**values: object) -> dict[str, object]:
    return {"hyper_parameters": values, "hparams_name": "kwargs",
            "datamodule_hyper_parameters": dict(values)}  # fmt: skip


NESTED = {"class_path": "canary.Task", "init_args": {}}
INSTANTIATE = "lightning.pytorch.cli.instantiate_module"
# Added to a good checkpoint. The first three are pickles of code, the others data that names code.
POISONS: dict[str, dict[str, Any] | None] = {
    "zip": None,
    "legacy": None,
    "pickle": None,
    "posing": None,
    "class_path": hyper_parameters(_class_path="canary.Task", _instantiator=INSTANTIATE),
    "instantiator": hyper_parameters(_instantiator="canary.fire", lr=9.0),
    "nested": hyper_parameters(
        _class_path="boxpromptiml.tasks.distill.DistillTask",
        _instantiator=INSTANTIATE,
        student=NESTED,
        input=NESTED,
        pretrained=NESTED,
    ),
    "nested_plain": hyper_parameters(student=NESTED, pretrained=NESTED),
}
PICKLES = ("zip", "legacy", "pickle", "posing")


def poisoned(trained: Path, name: str, marks: Path, folder: Path) -> Path:
    """A checkpoint that would be good, but for the canary in it."""
    path = folder / ("evil.safetensors" if name == "posing" else "evil.ckpt")
    good = LocalCheckpointIO().load_checkpoint(trained / "checkpoints" / "last.ckpt")
    evil = Reduced(marks / "unpickled")
    if name == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": {}, "extra": evil}, protocol=2))
    elif name in PICKLES:
        content = good | {"extra": evil}
        torch.save(content, path, _use_new_zipfile_serialization=name != "legacy")
    else:
        torch.save(good | (POISONS[name] or {}), path)
    return path


def fired(marks: Path) -> list[str]:
    return sorted(path.name for path in marks.iterdir())


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
@pytest.mark.parametrize(("number", "poison"), enumerate(POISONS), ids=str)
def test_no_verb_runs_what_a_checkpoint_brings(
    number: int,
    poison: str,
    trained: tuple[Path, list[str]],
    marks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pickled code is refused; hyperparameters are not read, and the weights serve.

    Everything through `fit` and one of the other verbs.
    """
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # the harder way; see the next test
    run, arguments = trained
    path = poisoned(run, poison, marks, tmp_path)
    for verb in ("fit", VERBS[1 + number % 3]):
        status = main([verb, *arguments, f"--ckpt_path={path}"])
        assert status == (1 if poison in PICKLES else 0)
        assert fired(marks) == []


def python_entries(path: Path, data: Path, out: Path) -> dict[str, Callable[[], object]]:
    """Everything else that opens a file of weights, by name."""
    folder = out / "smp"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(path.read_bytes())
    weights = SegmenterConfig(name="deeplabv3", weights=path)
    student = StudentConfig(backbone="mobilenetv3_small_050")
    trainer = Trainer(logger=False, accelerator="cpu", plugins=LocalCheckpointIO(),
                      enable_progress_bar=False, default_root_dir=out)  # fmt: skip
    manifest = f"--manifest={data}/train.jsonl"
    return {
        "localize": lambda: main(
            ["localize", f"--checkpoint={path}", f"--images=[{data}/test]", f"--out={out}/maps"]
        ),
        "cam-boxes": lambda: data_prep(
            ["cam-boxes", manifest, f"--checkpoint={path}", f"--out={out}/boxes.jsonl"]
        ),
        "pseudo-masks": lambda: data_prep(
            ["pseudo-masks", manifest, "--teacher=sam", f"--checkpoint={path}", "--device=cpu",
             f"--out={out}/masks"]
        ),
        "Localizer.load": lambda: Localizer.load(path),
        "load_localizer": lambda: load_localizer(path),
        "load_weights": lambda: load_weights(path),
        "load_sam": lambda: load_sam(path, "vit_b"),
        "deeplabv3": lambda: build_segmenter(weights),
        "pspnet": lambda: build_segmenter(
            SegmenterConfig(name="pspnet", weights=path, encoder="resnet18")
        ),
        "pspnet folder": lambda: build_segmenter(SegmenterConfig(name="pspnet", weights=folder)),
        "sam regions": lambda: build_segmenter(SegmenterConfig(name="sam", weights=path)),
        "pretrained": lambda: DistillTask(student, pretrained=path),
        "Trainer": lambda: trainer.validate(
            DistillTask(student), dataloaders=[], ckpt_path=str(path), verbose=False
        ),
        "load_from_checkpoint": lambda: DistillTask.load_from_checkpoint(path),
        "CheckpointIO": lambda: LocalCheckpointIO().load_checkpoint(path, weights_only=False),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
@pytest.mark.parametrize(
    ("poison", "forced"), [(poison, True) for poison in POISONS] + [(p, False) for p in PICKLES]
)
def test_no_other_entry_does(
    poison: str,
    forced: bool,
    trained: tuple[Path, list[str]],
    data_root: Path,
    marks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = poisoned(trained[0], poison, marks, tmp_path)
    for name, entry in python_entries(path, data_root, tmp_path).items():
        refused = False
        try:
            refused = entry() == 1
        except UserError:
            refused = True
        assert fired(marks) == [], name
        assert refused or poison not in PICKLES, name


@pytest.mark.parametrize(
    ("verb", "address"),
    [("fit", "http://127.0.0.1:9/x.ckpt"), ("validate", "https://h/x.ckpt"),
     ("test", "file:///tmp/x.ckpt"), ("predict", "memory://x.ckpt"),
     ("fit", "simplecache::http://127.0.0.1:9/x.ckpt"), ("test", "s3://b/x.ckpt")],
)  # fmt: skip
def test_no_address_is_opened(
    verb: str, address: str, trained: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, *trained[1], f"--ckpt_path={address}"]) == 1
    assert "addresses are not opened" in capsys.readouterr().err


OURS = "model: {{class_path: DistillTask, {}}}"
CALLBACKS = "trainer: {{callbacks: [{}]}}"
# Each names the canary, or something that runs what it is given.
CONFIGURATIONS = {
    "model": "model: {class_path: canary.Task}",
    "model, short": "model: canary.Task",
    "os.system": "model: {class_path: os.system, init_args: {command: touch MARKS/called}}",
    "Popen": "model: {class_path: subprocess.Popen, init_args: {args: [touch, MARKS/called]}}",
    "callback": CALLBACKS.format("{class_path: canary.Evil}"),
    "callback eval": CALLBACKS.format("{class_path: builtins.eval, init_args: {source: '1'}}"),
    "logger": "trainer: {logger: {class_path: canary.Evil}}",
    "plugin": "trainer: {plugins: {class_path: canary.Evil}}",
    "profiler": "trainer: {profiler: {class_path: canary.Evil}}",
    "strategy": "trainer: {strategy: {class_path: canary.Evil}}",
    "torch.load": "model: {class_path: torch.load, init_args: {f: EVIL, weights_only: false}}",
    "through ours": "model: {class_path: boxpromptiml.tasks.base.torch.load}",
    "through theirs": CALLBACKS.format("{class_path: lightning.pytorch.callbacks.os.system}"),
    "nested": OURS.format("init_args: {pretrained: {class_path: canary.Evil}}"),
    "nested student": OURS.format("init_args: {student: {class_path: canary.Task}}"),
    "nested unknown": OURS.format("dict_kwargs: {x: {class_path: canary.Evil}}"),
    "nested logger": "trainer: {logger: {class_path: lightning.pytorch.loggers.WandbLogger, "
    "init_args: {offline: true, config: {class_path: canary.Evil}}}}",
    "lambda": CALLBACKS.format("{class_path: LambdaCallback, init_args: {setup: canary.fire}}"),
    "lambda system": CALLBACKS.format("{class_path: lightning.pytorch.callbacks.LambdaCallback, "
                                      "init_args: {setup: os.system}}"),
    "partial": CALLBACKS.format("{class_path: functools.partial, init_args: {func: os.system}}"),
    "data": "data: {segmenter: {class_path: canary.Task}}",
    "data input": "data: {input: {class_path: canary.Task, init_args: {}}}",
    "checkpoint": "checkpoint: {class_path: canary.Evil}",
    "yaml object": "model: !!python/object/apply:os.system ['touch MARKS/called']",
    "yaml name": "model: !!python/name:canary.fire",
    "yaml module": "model: !!python/module:canary",
}  # fmt: skip


def hostile(text: str, marks: Path, folder: Path) -> Path:
    evil = folder / "evil.pth"
    torch.save({"x": Reduced(marks / "unpickled")}, evil)
    path = folder / "hostile.yaml"
    path.write_text(text.replace("MARKS", str(marks)).replace("EVIL", str(evil)))
    return path


@pytest.mark.parametrize(("number", "name"), enumerate(CONFIGURATIONS), ids=str)
def test_no_configuration_of_a_training_does(
    number: int,
    name: str,
    trained: tuple[Path, list[str]],
    marks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Everything through `fit`, every fourth through each of the other verbs as well."""
    path = hostile(CONFIGURATIONS[name], marks, tmp_path)
    for verb in {"fit", VERBS[number % 4]}:
        arguments = [verb, *trained[1], "--config", str(path), "--trainer.fast_dev_run=true"]
        try:
            status = main(arguments)
        except ValueError:
            assert name == "nested unknown"  # no argument of the task: jsonargparse's own words
            status = 1
        assert fired(marks) == []
        assert (status == 0) == (name == "nested logger")  # there it is data, and stays data
        assert "Traceback" not in capsys.readouterr().err


SEGMENTER = "segmenter: {class_path: canary.Task}"
JOBS = {
    "localize": f"checkpoint: x.ckpt\nimages: [x]\nout: x\n{SEGMENTER}",
    "localize path": "checkpoint: {class_path: canary.Task}\nimages: [x]\nout: x",
    "evaluate": "predictions: {class_path: canary.Task}\nmanifest: [x]\nout: x",
    "localize yaml": "checkpoint: !!python/object/apply:os.system ['touch MARKS/called']",
    "pseudo-masks": "manifest: x\nout: x\nteacher: {class_path: canary.Task}",
    "check": "manifest: [{class_path: canary.Task}]",
    "import": "dataset: {class_path: canary.Task}\nsource: canary.fire\nout: x",
}


@pytest.mark.parametrize("name", JOBS)
def test_no_configuration_of_another_command_does(name: str, marks: Path, tmp_path: Path) -> None:
    path, verb = hostile(JOBS[name], marks, tmp_path), name.split(maxsplit=1)[0]
    run = main if verb in ("localize", "evaluate") else data_prep
    assert run([verb, "--config", str(path)]) == 2
    assert fired(marks) == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/c.yaml", "memory://c.yaml"])
def test_no_configuration_is_fetched(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", address]) == 2
    assert main(["localize", "--config", address]) == 2


def test_the_message_says_how_to_allow_it_and_that_works(
    trained: tuple[Path, list[str]], marks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", *trained[1], "--trainer.callbacks+=canary.Evil", "--trainer.fast_dev_run=1"]
    assert main(arguments) == 2
    assert "--trust=canary.Evil" in capsys.readouterr().err
    assert fired(marks) == []
    assert main([*arguments, "--trust=canary.Evil"]) == 0
    assert fired(marks) == ["called", "imported"]


@pytest.mark.parametrize("trusted", ["*", "jsonargparse", "not a path"])
def test_trust_names_something(trusted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", f"--trust={trusted}"]) == 1
    assert "--trust" in capsys.readouterr().err


def unrestricted(monkeypatch: pytest.MonkeyPatch) -> None:
    """jsonargparse as it is without us: it warns, and goes on."""
    monkeypatch.setattr(lightning, "restrict_imports", lambda *_: None)
    settings = jsonargparse_settings.parsing_settings
    settings["import_paths_enforced"] = False
    settings["import_path_verdicts"] = {}


@pytest.mark.parametrize(
    "name", ["model", "callback", "logger", "lambda", "data", "nested student"]
)
def test_control_configurations_are_alive(
    name: str,
    trained: tuple[Path, list[str]],
    marks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unrestricted(monkeypatch)
    path = hostile(CONFIGURATIONS[name], marks, tmp_path)
    with suppress(Exception):  # what happens after the mark does not matter
        main(["fit", *trained[1], "--config", str(path), "--trainer.fast_dev_run=true"])
    assert "imported" in fired(marks)


@pytest.mark.parametrize("poison", ["class_path", "nested", "nested_plain"])
def test_control_hyperparameters_are_alive(
    poison: str,
    trained: tuple[Path, list[str]],
    marks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lightning 2.6.6 imports what a data-only checkpoint names."""
    unrestricted(monkeypatch)
    monkeypatch.delattr(lightning.TrainerCLI, "_parse_ckpt_path")
    assert lightning.TrainerCLI._parse_ckpt_path is LightningCLI._parse_ckpt_path
    path = poisoned(trained[0], poison, marks, tmp_path)
    with suppress(Exception):
        main(["validate", *trained[1], f"--ckpt_path={path}"])
    assert "imported" in fired(marks)


@pytest.mark.parametrize("poison", ["zip", "legacy", "pickle"])
def test_control_pickles_are_alive(
    poison: str, trained: tuple[Path, list[str]], marks: Path, tmp_path: Path
) -> None:
    path = poisoned(trained[0], poison, marks, tmp_path)
    with suppress(RuntimeError):  # a bare pickle runs first and is then found to be none of its own
        torch.load(path, weights_only=False)  # noqa: TID251
    assert fired(marks) == ["unpickled"]


def test_a_good_safetensors_file_still_loads(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "good.safetensors")
    assert load_weights(tmp_path / "good.safetensors")["a"].tolist() == [1, 1]
