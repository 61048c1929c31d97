"""A dependency that only some commands need: without it they say in one line how to install it."""

import os
import re
import sys
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxpromptiml.cli import _PACKAGES as PACKAGES
from tests.helpers.commands import run

ROOT = Path(__file__).parents[2]
LOCALIZE = "localize --images a.png --out out"
FIT = f"fit --config {ROOT}/experiments/student.yaml --data.train=[m.jsonl] --data.val=[m.jsonl]"
COMMANDS = {
    "albumentations": FIT,
    "matplotlib": "report --run run",
    "onnxruntime": f"{LOCALIZE} --isolate=false --checkpoint empty.onnx",
    "segment_anything": f"{LOCALIZE} --segmenter.name=sam --segmenter.weights=empty.pth",
    "segmentation_models_pytorch": (
        f"{LOCALIZE} --segmenter.name=pspnet --segmenter.weights=empty.pth"
    ),
    "starlette": "page",
    "wandb": f"{FIT} --config {ROOT}/experiments/wandb.yaml",
}


def hide(package: str, folder: Path) -> None:
    """Make the package impossible to import, import our own modules anew, work in `folder`."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("boxpromptiml", "data_prep", package):
            del sys.modules[name]
    sys.modules[package] = None  # type: ignore[assignment]
    os.chdir(folder)


@pytest.mark.slow
@pytest.mark.parametrize("package", COMMANDS)
def test_the_command_that_needs_a_missing_package_says_so(package: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    for name in ("empty.pth", "empty.onnx"):
        (tmp_path / name).touch()
    ended = run(["boxpromptiml", *COMMANDS[package].split()], partial(hide, package, tmp_path))
    assert ended.status == 1
    name = PACKAGES.get(package, package)
    wanted = r'"boxpromptiml\[export\]"' if package == "onnxruntime" else name
    assert "Traceback" not in ended.said
    last = ended.said.splitlines()[-1]
    assert re.fullmatch(rf"error: {name} is not installed: pip install {wanted}", last)


def test_names_for_pip_are_those_of_the_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[\[<>=]", line)[0] for line in project["dependencies"]}
    assert set(PACKAGES.values()) <= needed
