"""Small ONNX graphs with the ends of an exported network, made by hand: most mean harm."""

from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from boxpromptiml.inference.spec import ModelSpec, to_json
from boxpromptiml.models.configs import StudentConfig
from boxpromptiml.models.inputs import NetworkInput

SPEC = ModelSpec(StudentConfig("mobilenetv3_small_050"), NetworkInput("native", (64, 64)), 0.5)
End = tuple[str, list[int | str]]  # name and shape
IMAGE: End = ("image", ["batch", 3, "height", "width"])
LOGITS: End = ("logits", ["batch", 1, "height", "width"])
IMAGE_LOGIT: End = ("image_logit", ["batch"])


def value(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def mean(source: str, result: str, axes: str, keep: int) -> NodeProto:
    return helper.make_node("ReduceMean", [source, axes], [result], keepdims=keep)


def brightness_nodes(source: str = "image") -> list[NodeProto]:
    """The logit of a pixel is its brightness; that of the image their mean."""
    return [mean(source, "logits", "channel", 1), mean("logits", "image_logit", "all", 0)]


def graph(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto] | None = None,
    outputs: list[ValueInfoProto] | None = None,
    constants: dict[str, list[float]] | None = None,
) -> GraphProto:
    """A graph with the usual ends, unless others are given."""
    whole = [
        helper.make_tensor("channel", TensorProto.INT64, [1], [1]),
        helper.make_tensor("all", TensorProto.INT64, [3], [1, 2, 3]),
    ]
    whole += [
        helper.make_tensor(name, TensorProto.FLOAT, [], values)
        for name, values in (constants or {}).items()
    ]
    ends = [value(*IMAGE)], [value(*LOGITS), value(*IMAGE_LOGIT)]
    return helper.make_graph(nodes, "g", inputs or ends[0], outputs or ends[1], whole)


def save(path: Path, made: GraphProto, description: str | None = None) -> Path:
    """Write a graph as .onnx, by default with the description of a student."""
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    text = to_json(SPEC.to_dict()) if description is None else description
    model.metadata_props.add(key="boxpromptiml", value=text)
    onnx.save(model, path)
    return path


def endless(path: Path) -> Path:
    """A loop of 2^62 rounds before the answer."""
    true = helper.make_tensor("t", TensorProto.BOOL, [], [1])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["again"]),
            helper.make_node("Sin", ["x"], ["y"]),
        ],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("x", [])],
        [value("again", [], TensorProto.BOOL), value("y", [])],
    )
    rounds = helper.make_tensor("n", TensorProto.INT64, [], [2**62])
    nodes = [
        helper.make_node("Constant", [], ["rounds"], value=rounds),
        helper.make_node("Constant", [], ["true"], value=true),
        helper.make_node("Loop", ["rounds", "true", "one"], ["turned"], body=body),
        helper.make_node("Add", ["image", "turned"], ["late"]),
        *brightness_nodes("late"),
    ]
    return save(path, graph(nodes, constants={"one": [1.0]}))


def greedy(path: Path) -> Path:
    """Asks for 400 GB, as one tensor of ones, before the answer."""
    size = helper.make_tensor("s", TensorProto.INT64, [2], [10**6, 10**5])
    one = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("Constant", [], ["size"], value=size),
        helper.make_node("ConstantOfShape", ["size"], ["ones"], value=one),
        helper.make_node("ReduceMean", ["ones"], ["mean"], keepdims=0),
        helper.make_node("Add", ["image", "mean"], ["late"]),
        *brightness_nodes("late"),
    ]
    return save(path, graph(nodes))


def not_finite(path: Path) -> Path:
    """Divides by zero."""
    nodes = [helper.make_node("Div", ["image", "zero"], ["x"]), *brightness_nodes("x")]
    return save(path, graph(nodes, constants={"zero": [0.0]}))


def another_size(path: Path) -> Path:
    """A map of half the width, whatever is declared."""
    ends = [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in (("a", 0), ("b", 9))]
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in ends]
    axis = helper.make_tensor("c", TensorProto.INT64, [1], [3])
    nodes += [
        helper.make_node("Constant", [], ["c"], value=axis),
        helper.make_node("Slice", ["image", "a", "b", "c"], ["x"]),
        *brightness_nodes("x"),
    ]
    return save(path, graph(nodes))
