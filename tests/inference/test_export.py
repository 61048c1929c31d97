import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch.nn.functional import binary_cross_entropy_with_logits

from boxpromptiml import Localizer
from boxpromptiml.cli import main
from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import TorchNetwork, build_network
from boxpromptiml.inference.export import describe, export
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.onnx_networks import OnnxNetwork
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io import images
from boxpromptiml.models.configs import CamConfig, WCBConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.segmenters.config import SegmenterConfig
from tests.helpers.models import EXPORTED, SPECS, FileMaker, Files, make_network

SCRIPT = Path(__file__).parents[2] / "examples" / "localize_onnx.py"
WITHOUT_TORCH = """
import runpy, sys
for name in ("torch", "boxpromptiml", "cv2", "onnx", "timm"):
    sys.modules[name] = None  # importing it raises ImportError
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module", params=EXPORTED)
def pair(request: pytest.FixtureRequest, exported: FileMaker) -> Files:
    return exported(request.param)


def test_localize_gives_the_same_from_either_file(
    pair: Files, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in pair[1:]:
        out = tmp_path / file.suffix
        words = [f"--checkpoint={file}", f"--out={out}", "--images", str(photo)]
        assert main(["localize", *words]) == 0
    said = capsys.readouterr().err
    assert "runtime: torch, cpu, fp32" in said
    assert "runtime: onnx, cpu, fp32" in said
    first, second = (
        json.loads((tmp_path / f.suffix / "predictions.jsonl").read_text()) for f in pair[1:]
    )
    assert first["image_score"] == pytest.approx(second["image_score"], abs=2e-6)
    one, two = (Localizer.load(file)(photo) for file in pair[1:])
    np.testing.assert_allclose(one, two, atol=1e-5)
    one, two = (Localizer.load(file)(photo, tile=True) for file in pair[1:])
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_large_photographs_have_the_same_maps_from_either_file(
    pair: Files, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxpromptiml.inference.spec.MAX_WHOLE_PIXELS", 99)
    monkeypatch.setattr("boxpromptiml.inference.localizer._WHOLE_SIDE", 50)
    one, two = (Localizer.load(file)(photo) for file in pair[1:])
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_script_needs_no_torch_and_agrees(pair: Files, photo: Path, tmp_path: Path) -> None:
    _, source, exported = pair
    words = [str(SCRIPT), str(exported), str(photo), str(tmp_path / "prob.png")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    localizer = Localizer.load(source, segmenter=SegmenterConfig("none"))  # as the script
    found = localizer.localize([images.read_image(photo)[0]])[0]
    levels = images.read_image(tmp_path / "prob.png")[0][..., 0]
    assert np.abs(levels / 255 - found.prob).max() < 1.5 / 255
    score = float(done.stdout.removeprefix("image score ").partition(",")[0])
    assert score == pytest.approx(found.score, abs=1e-3)  # a resize may round a level differently


def test_the_hook_would_catch_an_import_of_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.replace("runpy.run", "import torch; runpy.run"), "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "import of torch halted" in done.stderr


def test_the_file_says_what_others_must_know(pair: Files) -> None:
    spec, source, exported = pair
    values = OnnxNetwork(exported, "cpu", "fp32").description
    said = values["exported"]
    assert said["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert said["normalisation"]["done_by"] == "the network"
    assert said["opset"] == 20
    assert said["version"]
    assert ModelSpec.from_dict(values) == spec == Localizer.load(source).spec


def test_safetensors_of_a_checkpoint_and_back(
    checkpoint: Path, tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--checkpoint={checkpoint}", f"--out={tmp_path / 'student.safetensors'}"]
    assert main(["export", *words]) == 0
    assert "student.safetensors: " in capsys.readouterr().out
    one, two = (Localizer.load(f)(photo) for f in (checkpoint, tmp_path / "student.safetensors"))
    np.testing.assert_array_equal(one, two)


def scene(rng: np.random.Generator) -> tuple[ImageArray, MaskArray]:
    """Noise with a brighter rectangle, and where it is."""
    image = rng.integers(0, 120, (64, 64, 3), np.uint8)
    truth = np.zeros((64, 64), bool)
    top, left = rng.integers(0, 32, 2)
    truth[top : top + 28, left : left + 28] = True
    image[truth] += 100
    return image, truth


def test_half_precision_halves_the_file_and_keeps_the_f1(tmp_path: Path) -> None:
    """On a network that has learnt to find a rectangle, so that its F1 says something."""
    spec = replace(SPECS["resized"], input=NetworkInput("native", (64, 64)))
    network = make_network(spec).train()
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    for _ in range(40):
        scenes = [scene(rng) for _ in range(8)]
        given = torch.tensor(np.stack([image for image, _ in scenes]) / 255).permute(0, 3, 1, 2)
        wanted = torch.tensor(np.stack([truth for _, truth in scenes])).float()
        loss = binary_cross_entropy_with_logits(network(given.float()).logits[:, 0], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    full, half = (tmp_path / f"{name}.safetensors" for name in ("full", "half"))
    write_safetensors(full, network, describe(network, spec))
    assert main(["export", f"--checkpoint={full}", "--half", f"--out={half}"]) == 0
    assert half.stat().st_size < 0.7 * full.stat().st_size  # of which 10 kB are names
    one, two = Localizer.load(full), Localizer.load(half)
    assert one.spec == two.spec == spec
    assert isinstance(two.network, TorchNetwork)
    assert {value.dtype for value in two.network.module.parameters()} == {torch.float32}
    for image, truth in (scene(rng) for _ in range(4)):
        first, second = one(image), two(image)
        assert 0 < np.abs(first - second).max() < 1e-2
        f1 = f1_score(truth.ravel(), first.ravel() > 0.5)
        assert f1 > 0.8
        assert f1_score(truth.ravel(), second.ravel() > 0.5) == pytest.approx(f1, abs=1e-3)


def test_wrong_use_is_said(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.onnx or \.safetensors"):
        export(checkpoint, tmp_path / "student.pt")
    spec = ModelSpec(WCBConfig(inputs="rgb"), NetworkInput(), 0.5, CamConfig("gradcam"))
    write_safetensors(tmp_path / "w.safetensors", build_network(spec), spec.to_dict())
    before = (tmp_path / "w.safetensors").read_bytes()
    with pytest.raises(UserError, match="is what the job reads"):
        export(tmp_path / "w.safetensors", tmp_path / "w.safetensors", half=True)
    assert (tmp_path / "w.safetensors").read_bytes() == before
    with pytest.raises(UserError, match="needs gradients"):
        export(tmp_path / "w.safetensors", tmp_path / "w.onnx")
    assert not (tmp_path / "w.onnx").exists()
    with pytest.raises(UserError, match=r"--half is for \.safetensors"):
        export(checkpoint, tmp_path / "student.onnx", half=True)
    network = make_network(SPECS["resized"])
    next(network.parameters()).data.fill_(1e6)
    with pytest.raises(UserError, match="float16"):
        write_safetensors(tmp_path / "h.safetensors", network, {}, half=True)
    assert not (tmp_path / "h.safetensors").exists()
