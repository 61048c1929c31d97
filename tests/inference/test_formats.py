import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from boxpromptiml.errors import UserError
from boxpromptiml.inference import formats
from boxpromptiml.inference.checkpoint import ModelSpec, build_network, load_localizer
from boxpromptiml.inference.formats import (
    PARITY,
    read_safetensors,
    write_onnx,
    write_safetensors,
)
from boxpromptiml.models.fusion import FusionConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.models.student import StudentConfig
from boxpromptiml.models.wcbnet import WCBConfig

SMALL = FusionConfig(width=16, prototypes=8)
CARDS = {
    "mobilenet": ModelSpec(
        StudentConfig("mobilenetv3_small_050", "srm", stages=(1, 2, 3), fusion=SMALL),
        NetworkInput("native", (64, 64)),
        0.4,
        trained_on=("CASIA v2",),
    ),
    "tinyvit": ModelSpec(StudentConfig(fusion=SMALL), NetworkInput(), 0.5),
    "wcbnet": ModelSpec(
        WCBConfig("mobilenetv3_small_050"), NetworkInput("native", (64, 64), (60, 90)), 0.5
    ),
}


def make_network(spec: ModelSpec):
    torch.manual_seed(0)
    network = build_network(spec)
    with torch.no_grad():  # at the start gates and attention say next to nothing
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture(scope="module", params=list(CARDS))
def exported(request, tmp_path_factory):
    onnxruntime = pytest.importorskip("onnxruntime")
    spec = CARDS[request.param]
    network = make_network(spec)
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    difference = write_onnx(path, network, 3 + spec.input.extra_channels, spec.to_dict())
    assert difference <= PARITY
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return path, network, spec, session


def photograph(batch: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Smooth shading, an edge and noise of 8-bit levels; extra channels in [-1, 1]."""
    generator = torch.Generator().manual_seed(height + width)
    small = torch.rand(batch, channels, 4, 4, generator=generator)
    image = torch.nn.functional.interpolate(small, (height, width), mode="bicubic")
    image[..., width // 2 :] *= 0.6
    image += 0.02 * torch.randn(image.shape, generator=generator)
    image = (image.clamp(0, 1) * 255).round() / 255
    image[:, 3:] = 2 * image[:, 3:] - 1
    return image


SIZES = [(1, 224, 224), (2, 96, 160), (3, 64, 32), (1, 250, 190), (2, 33, 100), (1, 37, 40)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["random", "photograph"])
def test_onnx_equals_torch_at_every_size_and_batch(exported, size, kind):
    _, network, spec, session = exported
    channels = 3 + spec.input.extra_channels
    batch, height, width = size
    image = photograph(batch, channels, height, width)
    if kind == "random":
        image = torch.rand(batch, channels, height, width)
    with torch.no_grad():
        expected = network(image)
    logits, image_logit = (
        torch.from_numpy(found) for found in session.run(None, {"image": image.numpy()})
    )
    assert logits.shape == (batch, 1, height, width)
    assert float(expected.logits.std()) > 1e-3, "a flat map would prove nothing"
    for ours, theirs in ((logits, expected.logits), (image_logit, expected.image_logit)):
        torch.testing.assert_close(ours.sigmoid(), theirs.sigmoid(), atol=1e-5, rtol=0)


def test_one_onnx_file_with_names_and_card_and_no_paths(exported):
    path, _, spec, session = exported
    assert [p.name for p in path.parent.iterdir()] == ["network.onnx"]
    channels = 3 + spec.input.extra_channels
    assert session.get_inputs()[0].shape == ["batch", channels, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 1, "height", "width"]
    found = json.loads(session.get_modelmeta().custom_metadata_map["boxpromptiml"])
    assert ModelSpec.from_dict(found) == spec
    data = path.read_bytes()
    for place in (b"site-packages", str(Path.cwd()).encode(), b"boxpromptiml/models"):
        assert place not in data


def test_fixed_size_backbones_keep_their_size(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    config = StudentConfig("swin_tiny_patch4_window7_224", stages=(0,), fusion=SMALL)
    spec = ModelSpec(config, NetworkInput(), 0.5)
    path = tmp_path / "swin.onnx"
    assert write_onnx(path, make_network(spec), 3, spec.to_dict()) <= PARITY
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 224, 224]


def test_a_graph_that_differs_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    path = tmp_path / "network.onnx"
    path.write_bytes(b"before")
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1])
    graph = helper.make_graph([], "g", [value], [value])
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    monkeypatch.setattr(formats, "_trace", lambda *_: model)
    monkeypatch.setattr(formats, "_difference", lambda *_: float("nan"))
    spec = CARDS["mobilenet"]
    with pytest.raises(RuntimeError, match="differs from PyTorch"):
        write_onnx(path, make_network(spec), 3, spec.to_dict())
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package} is not installed: .*\[export\]"):
        write_onnx(tmp_path / "x.onnx", make_network(CARDS["mobilenet"]), 3, {})


@pytest.mark.parametrize("name", list(CARDS))
def test_safetensors_bring_back_the_same_network(tmp_path, name):
    spec = CARDS[name]
    network = make_network(spec)
    path = tmp_path / "network.safetensors"
    write_safetensors(path, network, spec.to_dict())
    assert [p.name for p in tmp_path.iterdir()] == ["network.safetensors"]
    again, found = load_localizer(path)
    assert found == spec
    assert not again.training
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    with safe_open(path, framework="np") as stream:  # as any other program reads it
        assert ModelSpec.from_dict(json.loads(stream.metadata()["boxpromptiml"])) == spec


def test_safetensors_that_do_not_fit_are_refused(tmp_path):
    spec = CARDS["mobilenet"]
    path = tmp_path / "network.safetensors"
    write_safetensors(path, make_network(spec), spec.to_dict())
    state, description = read_safetensors(path)

    def save(state: dict[str, torch.Tensor], values: object) -> None:
        text = values if isinstance(values, str) else json.dumps(values)
        save_file(state, path, {"boxpromptiml": text})

    save(state, description | {"schema_version": 2})
    with pytest.raises(UserError, match="schema 2, this version reads 1"):
        load_localizer(path)
    save({k: v for k, v in state.items() if k != "head.4.bias"}, description)
    with pytest.raises(UserError, match=r"missing \(head\.4\.bias\)"):
        load_localizer(path)
    save(state | {"stranger": torch.zeros(1)}, description)
    with pytest.raises(UserError, match=r"unexpected \(stranger\)"):
        load_localizer(path)
    save(state, {k: v for k, v in description.items() if k != "threshold"})
    with pytest.raises(UserError, match="threshold: Field required"):
        load_localizer(path)
    save(state, "[1]")
    with pytest.raises(UserError, match="not a JSON object"):
        load_localizer(path)
    save_file(state, path)
    with pytest.raises(UserError, match="has no boxpromptiml metadata"):
        load_localizer(path)


def test_a_pickle_under_the_safe_name_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "evil.safetensors"
    torch.save({"state_dict": Payload()}, path)
    with pytest.raises(UserError, match="evil"):
        load_localizer(path)
    assert not (tmp_path / "ran").exists()


def test_the_disk_is_whole_or_untouched(tmp_path, monkeypatch):
    spec = CARDS["mobilenet"]
    path = tmp_path / "network.safetensors"
    network = make_network(spec)
    write_safetensors(path, network, spec.to_dict())
    before = load_file(path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write_safetensors(path, network, spec.to_dict())
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    assert np.all([torch.equal(load_file(path)[k], v) for k, v in before.items()])
