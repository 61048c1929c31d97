import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml import Localizer
from boxpromptiml.cli import call, main
from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import ModelSpec, build_network
from boxpromptiml.inference.export import export
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.onnx_networks import OnnxNetwork
from boxpromptiml.io import images
from boxpromptiml.models.configs import CamConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.models.wcbnet import WCBConfig
from tests.inference.test_localize import save_student

SCRIPT = Path(__file__).parents[2] / "examples" / "localize_onnx.py"
WITHOUT_TORCH = """
import runpy, sys
for name in ("torch", "boxpromptiml", "cv2", "onnx", "timm"):
    sys.modules[name] = None  # importing it raises ImportError
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module", params=["native", "resize", "label"])
def pair(request, tmp_path_factory):
    """A localizer's file for PyTorch, and its .onnx."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("export")
    if request.param == "label":
        source = folder / "label.safetensors"
        wcbnet = WCBConfig("mobilenetv3_small_050", stages=(0, 1, 2))
        spec = ModelSpec(wcbnet, NetworkInput("resize", (64, 96), (60, 90)), 0.5)
        write_safetensors(source, build_network(spec).eval(), spec.to_dict())
    else:
        source = save_student(folder / "student.ckpt", request.param)
    words = ["--checkpoint", str(source), "--out", str(folder / "exported.onnx")]
    assert call("boxpromptiml.inference.export:export", words, "export") == 0
    return source, folder / "exported.onnx"


@pytest.fixture
def photo(tmp_path):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (12, 17, 3), np.uint8)
    image = np.kron(small, np.ones((7, 7, 1), np.uint8)) // 2 + rng.integers(0, 99, (84, 119, 3))
    images.write_png(tmp_path / "photo.png", image.astype(np.uint8))
    return tmp_path / "photo.png"


def test_localize_gives_the_same_from_either_file(pair, photo, tmp_path, capsys):
    for file in pair:
        out = tmp_path / file.suffix
        words = [f"--checkpoint={file}", f"--out={out}", "--images", str(photo)]
        assert main(["localize", *words]) == 0
    said = capsys.readouterr().err
    assert "runtime: torch, cpu, fp32" in said
    assert "runtime: onnx, cpu, fp32" in said
    first, second = (
        json.loads((tmp_path / f.suffix / "predictions.jsonl").read_text()) for f in pair
    )
    assert first["image_score"] == pytest.approx(second["image_score"], abs=2e-6)
    one, two = (Localizer.load(file)(photo) for file in pair)
    np.testing.assert_allclose(one, two, atol=1e-5)
    tiled = [Localizer.load(file)(photo, tile=True) for file in pair]
    np.testing.assert_allclose(*tiled, atol=1e-5)


def test_the_script_needs_no_torch_and_agrees(pair, photo, tmp_path):
    source, exported = pair
    words = [str(SCRIPT), str(exported), str(photo), str(tmp_path / "prob.png")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    localizer = Localizer.load(source)
    found = localizer.localize([images.read_image(photo)[0]])[0]
    levels = images.read_image(tmp_path / "prob.png")[0][..., 0]
    assert np.abs(levels / 255 - found.prob).max() < 1.5 / 255
    score = float(done.stdout.removeprefix("image score ").partition(",")[0])
    assert score == pytest.approx(found.score, abs=1e-3)  # a resize may round a level differently


def test_the_hook_would_catch_an_import_of_torch():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.replace("runpy.run", "import torch; runpy.run"), "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "import of torch halted" in done.stderr


def test_the_file_says_what_others_must_know(pair):
    source, exported = pair
    values = OnnxNetwork(exported, "cpu", "fp32").description
    said = values["exported"]
    assert said["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert said["normalisation"]["done_by"] == "the network"
    assert said["opset"] == 20
    assert said["version"]
    assert ModelSpec.from_dict(values) == Localizer.load(source).spec


def test_safetensors_of_a_checkpoint_and_back(tmp_path, photo, capsys):
    source = save_student(tmp_path / "student.ckpt")
    export(source, tmp_path / "student.safetensors")
    assert "student.safetensors: " in capsys.readouterr().out
    one, two = (Localizer.load(tmp_path / f"student.{e}")(photo) for e in ("ckpt", "safetensors"))
    np.testing.assert_array_equal(one, two)


def test_wrong_use_is_said(tmp_path):
    source = save_student(tmp_path / "student.ckpt")
    with pytest.raises(UserError, match=r"must end in \.onnx or \.safetensors"):
        export(source, tmp_path / "student.pt")
    spec = ModelSpec(WCBConfig(inputs="rgb"), NetworkInput(), 0.5, CamConfig("gradcam"))
    write_safetensors(tmp_path / "w.safetensors", build_network(spec), spec.to_dict())
    with pytest.raises(UserError, match="takes gradients"):
        export(tmp_path / "w.safetensors", tmp_path / "w.onnx")
    assert not (tmp_path / "w.onnx").exists()
