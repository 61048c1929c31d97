"""What docs/extend.md says: its file, its commands and its script, outside the repository."""

import json
import multiprocessing
import pickle
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxpromptiml.cli import main
from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.io.trust import trust
from boxpromptiml.models.configs import OwnConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.segmenters.config import SegmenterConfig
from boxpromptiml.synth.degradation import Degradation
from boxpromptiml.tasks.distill import DistillTask
from boxpromptiml.teachers.config import TeacherOnDemand, make_teacher
from data_prep.__main__ import main as data_prep

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text()
TRAINED = "runs/tiny/checkpoints/best.ckpt"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with the page's file and a miniature of its dataset."""
    *parts, script = blocks("python")
    (tmp_path / "mylab.py").write_text("".join(parts))
    (tmp_path / "train.py").write_text(script)
    (tmp_path / "tiny.yaml").write_text(blocks("yaml")[0])
    rng = np.random.default_rng(0)
    for number in range(10):
        pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
        mask = np.zeros((32, 32), np.uint8)
        mask[8:20, 8:24] = 255
        for name, image in (("fake/{}", pixels), ("fake/{}_mask", mask), ("real/{}", pixels[::-1])):
            folder = "raw" if number < 6 else "raw_val"
            path = tmp_path / folder / f"{name.format(number)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mylab", raising=False)
    yield tmp_path
    sys.modules.pop("mylab", None)
    trust([])


def run(line: str) -> int:
    words = shlex.split(line)
    return data_prep(words[3:]) if words[0] == "python" else main(words[1:])


@pytest.mark.slow
def test_the_page_runs(lab: Path) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert sum("--trust" in line for line in lines) == 7
    for line in lines:
        assert run(line) == 0, line
    masks = [np.asarray(Image.open(path)) for path in Path("pseudo/masks").rglob("*.png")]
    assert all(0.7 < (mask == 255).sum() / (mask.any(0).sum() * mask.any(1).sum()) < 0.9
               for mask in masks if mask.any())  # fmt: skip
    assert len(list(Path("maps/prob").iterdir())) == 6
    rows = json.loads(Path("robust/robustness.json").read_text())["conditions"]
    assert [(row["name"], row["level"]) for row in rows] == [("none", None), ("mylab.grey", 0.5)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
    script = subprocess.run([sys.executable, "train.py"], env=environment, check=False)
    assert script.returncode == 0


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("import --dataset mylab.LAYOUT --source raw --out m.jsonl", "--dataset"),
        ("pseudo-masks --manifest m.jsonl --out p --teacher mylab.Ellipses", "--teacher"),
    ],
)
def test_nothing_is_imported_that_is_not_trusted(
    lab: Path, capsys: pytest.CaptureFixture[str], command: str, named: str
) -> None:
    for more in ("", " --trust other", " --trust mylab.Other", " --trust mylabs"):
        assert run("python -m data_prep import --dataset folder --source raw --out m.jsonl") == 0
        capsys.readouterr()
        assert run(f"python -m data_prep {command}{more}") == 1
        message = capsys.readouterr().err
        assert message.startswith(f"error: {named} names the code mylab.")
        assert message.endswith("--trust=mylab\n")
    assert "mylab" not in sys.modules


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("pseudo-masks --manifest m.jsonl --out p --teacher mylab.Ellipse",
         "--teacher: mylab.Ellipse: mylab has no 'Ellipse'"),
        ("pseudo-masks --manifest m.jsonl --out p --teacher mylab.Quarters",
         "--teacher: mylab.Quarters has no 'propose': see Teacher in boxpromptiml/records.py"),
        ("pseudo-masks --manifest m.jsonl --out p --teacher mylab.focal",
         "--teacher: mylab.focal, called without arguments: focal() missing 4 required"),
        ("pseudo-masks --manifest m.jsonl --out p --teacher grabcutt",
         "teacher: expected one of 'grabcut', 'sam'; expected an import path such as mylab.Own, "
         "got 'grabcutt'"),
        ("localize --images raw --out p --segmenter.name=mylab.Ellipses",
         "segmenter.name: mylab.Ellipses has no 'regions': see Segmenter"),
        ("robustness --manifest m.jsonl --out p --conditions mylab.gray:1",
         "the degradation: mylab.gray: mylab has no 'gray'"),
    ],
)  # fmt: skip
def test_a_misspelt_name_is_one_line_before_anything_is_computed(
    lab: Path, capsys: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    assert run("python -m data_prep import --dataset folder --source raw --out m.jsonl") == 0
    capsys.readouterr()
    program = "python -m data_prep" if command.startswith("pseudo") else "boxpromptiml"
    assert run(f"{program} {command} --trust mylab") in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"error: {said}")
    assert not Path("p").exists()


def test_the_side_loss_is_the_students(lab: Path) -> None:
    trust(["mylab"])
    with pytest.raises(UserError, match="attention_weight"):
        DistillTask(network=OwnConfig("mylab.Tiny"), attention_weight=0.5)


def test_a_teacher_is_built_in_a_process_that_trusts_nothing_yet(lab: Path) -> None:
    trust(["mylab"])
    make = partial(make_teacher, "mylab.Ellipses")
    sent = pickle.dumps(TeacherOnDemand(make, make().settings))
    trust([])
    boxes = np.array([[0, 0, 8, 8]], np.float32)
    there = pickle.loads(sent)  # noqa: S301 - what this test wrote
    (found,) = there.propose(np.zeros((8, 8, 3), np.uint8), boxes)
    assert 0.7 < found.mask.mean() < 0.9


@pytest.fixture
def spawned() -> Iterator[None]:
    """Processes that begin anew, as on macOS and Windows."""
    usual = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(usual, force=True)


@pytest.mark.slow
@pytest.mark.usefixtures("spawned")
def test_spawned_processes_find_the_code_too(lab: Path) -> None:
    layout = "--dataset mylab.LAYOUT --trust mylab --source raw --split val"
    assert run(f"python -m data_prep import {layout} --out val.jsonl") == 0
    assert run("python -m data_prep boxes --manifest val.jsonl --out val.jsonl") == 0
    teacher = "--teacher mylab.Ellipses --trust mylab --num_workers 1"
    assert run(f"python -m data_prep pseudo-masks --manifest val.jsonl --out p {teacher}") == 0
    loaded = LocalizationData(
        val=["val.jsonl"],
        input=NetworkInput(size=(32, 32)),
        degrade=Degradation("mylab.grey", 1.0),
        segmenter=SegmenterConfig(name="mylab.Quarters"),
        num_workers=1,
    )
    loaded.setup("validate")
    batch = next(iter(loaded.val_dataloader()))
    assert torch.equal(batch["image"][:, 0], batch["image"][:, 2])
    assert batch["regions"][0].max() == 4


def test_a_checkpoint_names_no_code_by_itself(lab: Path) -> None:
    trust(["mylab"])
    sys.path.append(str(lab))
    from boxpromptiml.inference.checkpoint import build_network
    from boxpromptiml.inference.formats import write_safetensors
    from boxpromptiml.inference.spec import ModelSpec

    spec = ModelSpec(OwnConfig("mylab.Tiny", {"width": 3}), NetworkInput(size=(32, 32)), 0.5)
    network = build_network(spec)
    write_safetensors(lab / "own.safetensors", network, spec.to_dict())
    found, again = load_localizer(lab / "own.safetensors")
    assert again == spec
    assert found.state_dict().keys() == network.state_dict().keys()
    trust([])
    with pytest.raises(UserError, match="the network names the code mylab"):
        load_localizer(lab / "own.safetensors")
