import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from boxpromptiml.errors import UserError
from boxpromptiml.inference import formats
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.formats import read_safetensors, write_onnx, write_safetensors
from boxpromptiml.inference.spec import ModelSpec
from tests.helpers.models import EXPORTED, SPECS, FileMaker, Files, make_network

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(
    scope="module",
    params=[*EXPORTED, *(pytest.param(n, marks=pytest.mark.slow) for n in ("tinyvit", "swin"))],
)
def pair(request: pytest.FixtureRequest, exported: FileMaker) -> tuple[Files, Any]:
    """A network's files, and its ONNX Runtime session without our code."""
    files = exported(request.param)
    session = onnxruntime.InferenceSession(str(files.onnx), providers=["CPUExecutionProvider"])
    return files, session


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


@pytest.mark.parametrize("kind", ["random", "photograph"])
def test_onnx_equals_torch_at_every_size_and_batch(pair: tuple[Files, Any], kind: str) -> None:
    files, session = pair
    network, spec = load_localizer(files.safetensors)
    fixed = network.backbone.fixed_size
    for batch, height, width in SIZES if fixed is None else [(1, *fixed), (2, *fixed)]:
        image = photograph(batch, 3 + spec.input.extra_channels, height, width)
        if kind == "random":
            image = torch.rand(image.shape)
        with torch.no_grad():
            expected = network(image)
        found = (torch.from_numpy(one) for one in session.run(None, {"image": image.numpy()}))
        assert float(expected.logits.std()) > 1e-3, "a flat map would prove nothing"
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours.sigmoid(), theirs.sigmoid(), atol=1e-5, rtol=0)


def test_one_onnx_file_with_names_and_spec_and_no_paths(pair: tuple[Files, Any]) -> None:
    files, session = pair
    size = ["height", "width"] if files.spec != SPECS["swin"] else [224, 224]
    channels = 3 + files.spec.input.extra_channels
    assert session.get_inputs()[0].shape == ["batch", channels, *size]
    assert session.get_outputs()[0].shape == ["batch", 1, *size]
    found = json.loads(session.get_modelmeta().custom_metadata_map["boxpromptiml"])
    assert ModelSpec.from_dict(found) == files.spec
    data = files.onnx.read_bytes()
    for place in (b"site-packages", str(Path.cwd()).encode(), b"boxpromptiml/models"):
        assert place not in data


def test_a_graph_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx import TensorProto, helper

    path = tmp_path / "network.onnx"
    path.write_bytes(b"before")
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1])
    graph = helper.make_graph([], "g", [value], [value])
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    monkeypatch.setattr(formats, "_trace", lambda *_: model)
    monkeypatch.setattr(formats, "_difference", lambda *_: float("nan"))
    spec = SPECS["student"]
    with pytest.raises(RuntimeError, match="differs from PyTorch"):
        write_onnx(path, make_network(spec), 3, spec.to_dict())
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package} is not installed: .*\[export\]"):
        write_onnx(tmp_path / "x.onnx", make_network(SPECS["student"]), 3, {})


@pytest.mark.parametrize("name", ["student", "wcbnet"])
def test_safetensors_bring_back_the_same_network(tmp_path: Path, name: str) -> None:
    spec = SPECS[name]
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


def test_safetensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    spec = SPECS["student"]
    path = tmp_path / "network.safetensors"
    write_safetensors(path, make_network(spec), spec.to_dict())
    state, description = read_safetensors(path)
    del description["file_sha256"]  # of the file as it was

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


def test_a_pickle_under_the_safe_name_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "evil.safetensors"
    torch.save({"state_dict": Payload()}, path)
    with pytest.raises(UserError, match="evil"):
        load_localizer(path)
    assert not (tmp_path / "ran").exists()


def test_the_disk_is_whole_or_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPECS["student"]
    path = tmp_path / "network.safetensors"
    network = make_network(spec)
    write_safetensors(path, network, spec.to_dict())
    before = load_file(path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write_safetensors(path, network, spec.to_dict())
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    assert all(torch.equal(load_file(path)[k], v) for k, v in before.items())
