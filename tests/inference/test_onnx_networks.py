"""Exported files of strangers: nothing but the one file is read, and what is wrong is said."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from boxpromptiml.errors import UserError
from boxpromptiml.inference import onnx_networks
from boxpromptiml.inference.onnx_networks import OnnxNetwork, OpenVinoNetwork
from boxpromptiml.inference.spec import ModelSpec
from tests.helpers import onnx_graphs
from tests.helpers.models import FileMaker

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

Kind = type[OnnxNetwork] | type[OpenVinoNetwork]
SECRET = np.arange(4, dtype=np.float32)


@pytest.fixture(params=[OnnxNetwork, OpenVinoNetwork])
def kind(request: pytest.FixtureRequest) -> Kind:
    pytest.importorskip({OnnxNetwork: "onnxruntime", OpenVinoNetwork: "openvino"}[request.param])
    found: Kind = request.param
    return found


def elsewhere(location: str) -> TensorProto:
    """Four values that lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(place: str, tensor: TensorProto, description: str | None = "{}") -> ModelProto:
    """A graph that answers a tensor, held in one of the places that a graph has for tensors."""
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    constant = helper.make_node("Constant", [], ["y"], value=tensor)
    initializers = [tensor] if place == "initializer" else []
    nodes = [constant]
    if place == "initializer":
        nodes = [helper.make_node("Identity", ["w"], ["y"])]
    elif place == "branch":
        branch = helper.make_graph([constant], "branch", [], [y])
        true = helper.make_tensor("true", TensorProto.BOOL, [], [1])
        nodes = [
            helper.make_node("Constant", [], ["c"], value=true),
            helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
        ]
    graph = helper.make_graph(nodes, "g", [], [y], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if description is not None:
        made.metadata_props.add(key="boxpromptiml", value=description)
    return made


@pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("where", ["beside", "above", "absolute"])
def test_other_files_are_not_read(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, where: str
) -> None:
    """The runtimes themselves would: without our check, the last line finds the secret."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(SECRET.tobytes())
    folder = tmp_path if where == "beside" else tmp_path / "below"
    folder.mkdir(exist_ok=True)
    location = str(secret) if where == "absolute" else os.path.relpath(secret, folder)
    onnx.save(model(place, elsewhere(location)), folder / "evil.onnx")
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="weights in other files"):
        kind(folder / "evil.onnx", "cpu", "fp32")


def test_the_check_above_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ONNX Runtime does with a constant, when nobody looks before."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "secret.bin").write_bytes(SECRET.tobytes())
    onnx.save(model("constant", elsewhere("secret.bin")), tmp_path / "evil.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_networks, "OTHER_FILE", "\0never\0")
    monkeypatch.setattr(onnx_networks, "_check_ends", lambda *_: None)
    network = OnnxNetwork(tmp_path / "evil.onnx", "cpu", "fp32")
    np.testing.assert_array_equal(network._session.run(None, {})[0], SECRET)


def test_a_dataset_may_be_called_location(kind: Kind, exported: FileMaker) -> None:
    spec, _, path = exported("student")
    assert "allocation and location" in spec.trained_on
    assert b"location" not in path.read_bytes()
    assert ModelSpec.from_dict(kind(path, "cpu", "fp32").description) == spec


def test_files_of_others_and_damaged_ones_are_refused(kind: Kind, tmp_path: Path) -> None:
    inside = helper.make_tensor("w", TensorProto.FLOAT, [4], SECRET)
    path = tmp_path / "other.onnx"
    for description, message in (
        (None, r"other\.onnx: has no boxpromptiml metadata"),
        ("{", "metadata: not valid JSON"),
        ("[" * 60_000, "metadata: not valid JSON"),
        ("[1]", "not a JSON object"),
    ):
        onnx.save(model("initializer", inside, description), path)
        with pytest.raises(UserError, match=message):
            kind(path, "cpu", "fp32")
    for data in (b"", b"\xff\xfe not a model", b"ORTM" * 9, path.read_bytes()[:40]):
        path.write_bytes(data)
        with pytest.raises(UserError, match="not an ONNX file"):
            kind(path, "cpu", "fp32")
    with pytest.raises(UserError, match="no such"):
        kind(tmp_path / "none.onnx", "cpu", "fp32")
    with pytest.raises(UserError, match="folder"):
        kind(tmp_path, "cpu", "fp32")


FLOAT64 = TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([("picture", [1, 3, 8, 8])], None, r"takes picture \(rank 4\)"),
        ([("image", [3, 8, 8])], None, r"takes image \(rank 3\)"),
        ([("image", [1, 3, 8, 8]), ("more", [1])], None, r"more \(rank 1\)"),
        (None, [("logits", [1, 1, 8, 8])], r"gives logits \(rank 4\);"),
        (None, [("logits", [8, 8]), ("image_logit", [1])], r"logits \(rank 2\)"),
        (None, [("map", [1, 1, 8, 8]), ("image_logit", [1])], r"map \(rank 4\)"),
        (None, [("logits", [1, 1, 8, 8], FLOAT64), ("image_logit", [1])], "logits"),
    ],
)
def test_inputs_and_outputs_are_checked_once(
    tmp_path: Path, inputs: list[Any] | None, outputs: list[Any] | None, message: str
) -> None:
    outputs = outputs or [("logits", [1, 1, 8, 8]), ("image_logit", [1])]
    nodes = []
    for name, shape, *kind in outputs:
        dtype = kind[0] if kind else TensorProto.FLOAT
        zeros = helper.make_tensor("z", dtype, shape, np.zeros(shape).ravel())
        nodes.append(helper.make_node("Constant", [], [name], value=zeros))
    into, out = (
        [onnx_graphs.value(*one) for one in side]
        for side in (inputs or [onnx_graphs.IMAGE], outputs)
    )
    made = onnx_graphs.graph(nodes, into, out)
    path = onnx_graphs.save(tmp_path / "other.onnx", made)
    with pytest.raises(UserError, match=message):
        OnnxNetwork(path, "cpu", "fp32")


@pytest.mark.parametrize(
    ("wanted", "threads"), [("3", 3), ("2,4", 2), ("0", None), ("many", None), (None, None)]
)
def test_threads_are_those_of_the_environment_or_all(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, threads: int | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wanted is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert onnx_networks._threads() == (threads or len(os.sched_getaffinity(0)))


def test_what_openvino_cannot_run_is_one_line(exported: FileMaker) -> None:
    pytest.importorskip("openvino")
    path = exported("student")[2]
    network = OpenVinoNetwork(path, "cpu", "fp32")
    with pytest.raises(UserError, match="not an ONNX file that OpenVINO can run"):
        network(np.zeros((1, 2, 32, 32), np.float32))
