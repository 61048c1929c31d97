"""Formats to share: `.safetensors` and `.onnx`, each a single file with its own metadata.

Neither can run code when it is read. The metadata (`inference.spec`) is in the header of a
`.safetensors` file and in the `metadata_props` of an `.onnx` file, which `inference.onnx_networks`
reads. It contains the hash of the file, so that a changed bit is noticed.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from boxpromptiml.errors import UserError
from boxpromptiml.inference.onnx_networks import import_onnxruntime
from boxpromptiml.inference.spec import (
    DESCRIPTION_KEY,
    SEAL,
    check_seal,
    from_json,
    sealed,
    to_json,
)
from boxpromptiml.io.files import write_bytes
from boxpromptiml.io.weights import load_weights
from boxpromptiml.models.student import Student
from boxpromptiml.models.wcbnet import WCBNet

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
PARITY = 1e-5  # probability

_TRACED = (2, 251, 189)  # batch 1 or sides without padding would be taken for granted
_TRIED = ((1, 96, 128), (3, 77, 50))


def write_safetensors(
    path: Path, network: Student | WCBNet, description: dict[str, Any], half: bool = False
) -> None:
    """Write a network's weights and its metadata, atomically.

    Args:
        path: The `.safetensors` file to write.
        network: The network.
        description: Metadata to store in the header.
        half: Round weights to float16, which halves the file; they are loaded as float32.

    Raises:
        UserError: If a weight is beyond the range of float16; nothing is written then.
    """
    state = {name: value.detach().contiguous() for name, value in network.state_dict().items()}
    if half:
        state = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
        if beyond := [name for name, value in state.items() if not value.isfinite().all()]:
            raise UserError(f"{beyond[0]} has values above 65504, the most that float16 can hold")
    write_state(path, state, description)


def write_state(path: Path, state: dict[str, torch.Tensor], description: dict[str, Any]) -> None:
    """Write named weights and their metadata as `.safetensors`, atomically."""
    write_bytes(path, sealed(save(state, {DESCRIPTION_KEY: to_json(description | SEAL)})))


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read weights by name, and the metadata.

    Raises:
        UserError: If the file is missing, damaged, or without boxpromptiml metadata.
    """
    state = load_weights(path)
    check_seal(path.read_bytes(), path)
    with safe_open(path, framework="pt") as stream:
        found = stream.metadata()
    return state, from_json((found or {}).get(DESCRIPTION_KEY), path)


def write_onnx(
    path: Path, network: Student | WCBNet, channels: int, description: dict[str, Any]
) -> float:
    """Compare a network's ONNX graph with PyTorch, then write it, atomically.

    Input `image` (batch, channels, height, width) float32 as from `models.inputs.to_planes`;
    outputs `logits` (batch, 1, height, width) and `image_logit` (batch). Normalisation and padding
    are part of the graph, so any height and width are accepted.

    Args:
        path: The `.onnx` file to write.
        network: The network, in evaluation mode, on the CPU.
        channels: Number of input channels.
        description: Metadata to store in `metadata_props`.

    Returns:
        Largest difference in probability from PyTorch, on random images of two sizes.

    Raises:
        RuntimeError: If the graph differs from PyTorch by more than `PARITY`; nothing is written.
        UserError: If the packages of the extra `export` are not installed.
    """
    try:
        import onnx  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ImportError as error:
        raise UserError(
            f'{error.name} is not installed: pip install "boxpromptiml[export]"'
        ) from error
    onnxruntime = import_onnxruntime()
    fixed = getattr(getattr(network, "backbone", None), "fixed_size", None)
    size = _TRACED[1:] if fixed is None else fixed
    model = _trace(network, torch.rand(_TRACED[0], channels, *size), fixed is None)
    model.metadata_props.add(key=DESCRIPTION_KEY, value=to_json(description | SEAL))
    data = sealed(model.SerializeToString())
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    tried = _TRIED if fixed is None else ((1, *fixed), (3, *fixed))
    worst = max(_difference(network, session, torch.rand(b, channels, h, w)) for b, h, w in tried)
    if not worst <= PARITY:
        raise RuntimeError(f"ONNX differs from PyTorch by {worst:.1e}; nothing was written")
    write_bytes(path, data)
    return worst


def _trace(network: Student | WCBNet, example: torch.Tensor, any_size: bool) -> "ModelProto":
    changing = (0, 2, 3) if any_size else (0,)
    # Named dimensions make PyTorch solve for their ranges, which fails on the rounding of sizes.
    shapes = {"image": dict.fromkeys(changing, torch.export.Dim.DYNAMIC)}
    outputs = ["logits", "image_logit"]
    with torch.no_grad(), warnings.catch_warnings():
        # TinyViT keeps its attention biases in a dictionary; they are folded into the graph.
        warnings.filterwarnings("ignore", "The tensor attributes? .* assigned during export")
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["image"],
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model: ModelProto = program.model_proto
    _tidy(model, changing)
    return model


def _tidy(model: "ModelProto", changing: tuple[int, ...]) -> None:
    """Name the dimensions, and remove stack traces, which contain paths of this computer."""
    for value in (*model.graph.input, *model.graph.output):
        names = ("batch", "channels", "height", "width")
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if place in changing:
                dim.dim_param = names[place]
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""


def _difference(network: Student | WCBNet, session: Any, image: torch.Tensor) -> float:
    with torch.no_grad():
        expected = network(image)
    found = session.run(None, {"image": image.numpy()})
    pairs = zip(expected, found, strict=True)
    return max(float((a.sigmoid() - torch.from_numpy(b).sigmoid()).abs().max()) for a, b in pairs)
