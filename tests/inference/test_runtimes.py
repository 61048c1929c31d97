import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.onnx_networks import OpenVinoNetwork
from boxpromptiml.inference.runtimes import Runtime, open_network
from boxpromptiml.models.inputs import sigmoid
from boxpromptiml.models.student import Student
from boxpromptiml.models.wcbnet import WCBNet
from tests.helpers.models import SPECS, FileMaker


class Torch(NamedTuple):
    """The student of `exported`: PyTorch's own network, and its files."""

    network: Student | WCBNet
    safetensors: Path
    onnx: Path


@pytest.fixture
def files(exported: FileMaker) -> Torch:
    _, safetensors, onnx = exported("student")
    return Torch(load_localizer(safetensors)[0], safetensors, onnx)


@pytest.mark.parametrize(
    "runtime", ["torch", pytest.param("compile", marks=pytest.mark.slow), "onnx", "openvino"]
)
def test_every_runtime_gives_the_same_probabilities(files: Torch, runtime: Runtime) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    network, safetensors, onnx = files
    opened = open_network(onnx if runtime in ("onnx", "openvino") else safetensors, runtime)
    assert opened.spec == SPECS["student"]
    assert opened.description == f"{runtime}, cpu, fp32"
    sizes = ((2, 64, 64), (1, 50, 75), (3, 33, 40))
    for size in sizes[:1] if runtime == "compile" else sizes:  # every size compiles anew
        image = torch.rand(size[0], 3, *size[1:])
        with torch.inference_mode():
            expected = network(image)
        found = opened.network(image.numpy())
        assert float(expected.logits.std()) > 1e-3
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(sigmoid(ours), theirs.sigmoid(), atol=1e-5, rtol=0)


def bright_photograph() -> torch.Tensor:
    """Residuals of a few grey levels in 200."""
    rows, columns = torch.meshgrid(torch.arange(80.0), torch.arange(70.0), indexing="ij")
    noise = torch.rand(80, 70, generator=torch.Generator().manual_seed(0))
    return ((120 + rows + 0.7 * columns + noise).round() / 255).expand(1, 3, 80, 70)


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_bf16_is_near(files: Torch, runtime: Runtime) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    network, safetensors, onnx = files
    file = onnx if runtime == "openvino" else safetensors
    opened = open_network(file, runtime, precision="bf16")
    with torch.inference_mode():
        exact = network(bright_photograph()).logits.sigmoid().numpy()
    found = opened.network(bright_photograph().contiguous().numpy())
    difference = np.abs(sigmoid(found.logits) - exact).max()
    assert difference < 0.01
    if runtime == "torch":  # OpenVINO ignores the wish where the processor has no bf16
        assert difference > 0


def test_openvino_keeps_residuals_exact_at_bf16(files: Torch) -> None:
    pytest.importorskip("openvino")
    network, _, onnx = files
    opened = open_network(onnx, "openvino", precision="bf16")
    assert isinstance(opened.network, OpenVinoNetwork)
    fed: list[torch.Tensor] = []
    hook = network.backbone.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    with torch.inference_mode():
        network(bright_photograph())
    hook.remove()
    found = torch.from_numpy(opened.network._front([bright_photograph().contiguous().numpy()])[0])
    torch.testing.assert_close(
        found, fed[0].contiguous(), atol=1e-4, rtol=0
    )  # bf16 errs by 0.004 and more


def test_auto_goes_by_file_precision_and_what_is_installed(
    files: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, safetensors, onnx = files
    assert open_network(safetensors).description == "torch, cpu, fp32"
    assert open_network(onnx).description == "onnx, cpu, fp32"
    pytest.importorskip("openvino")
    assert open_network(onnx, precision="bf16").description == "openvino, cpu, bf16"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert open_network(onnx).description == "openvino, cpu, fp32"
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"\[export\]"):
        open_network(onnx)
    with pytest.raises(UserError, match=r"\[openvino\]"):
        open_network(onnx, "openvino")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("onnx", {"runtime": "torch"}, "use --runtime auto"),
        ("onnx", {"runtime": "compile"}, "use --runtime auto"),
        ("safetensors", {"runtime": "onnx"}, "boxpromptiml export"),
        ("safetensors", {"runtime": "openvino"}, "boxpromptiml export"),
        ("safetensors", {"runtime": "tensorrt"}, "runtime must be one of"),
        ("onnx", {"precision": "int8"}, "precision must be one of"),
        ("onnx", {"runtime": "onnx", "precision": "bf16"}, "openvino for bf16"),
        ("onnx", {"device": "gpu"}, "unknown"),
    ],
)
def test_what_does_not_go_together_is_said(
    files: Torch, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_network(getattr(files, name), **options)


def test_no_gpu_in_openvino_and_the_cpu_build_of_onnx_runtime(
    files: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="onnxruntime-gpu"):
        open_network(files.onnx, "onnx", "cuda")
    with pytest.raises(UserError, match="on the CPU here"):
        open_network(files.onnx, "openvino", "cuda")


def test_compile_without_a_compiler_is_said(files: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler"):
        open_network(files.safetensors, "compile")
