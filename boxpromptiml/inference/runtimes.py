"""What runs a trained network: PyTorch, torch.compile, ONNX Runtime or OpenVINO.

All take and give the same arrays; at precision fp32 their probabilities agree to 1e-5. PyTorch is
imported for its own files only.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from boxpromptiml.errors import UserError
from boxpromptiml.inference.maps import Network, Precision
from boxpromptiml.inference.onnx_networks import OnnxNetwork, OpenVinoNetwork
from boxpromptiml.inference.spec import ModelSpec

Runtime = Literal["auto", "torch", "compile", "onnx", "openvino"]


class Opened(NamedTuple):
    """A network ready to run.

    Attributes:
        network: Student or WCBnet.
        spec: What the file says of it.
        description: Runtime, device and precision, for a person.
    """

    network: Network
    spec: ModelSpec
    description: str


def open_network(
    path: Path, runtime: Runtime = "auto", device: str = "cpu", precision: Precision = "fp32"
) -> Opened:
    """Load a localizer's file into the runtime that is asked for.

    `auto` is PyTorch for checkpoints and `.safetensors`. For `.onnx` it is ONNX Runtime, and
    OpenVINO for bf16 on a CPU or where ONNX Runtime is not installed.

    Args:
        path: A checkpoint of `boxpromptiml fit`, or a file of `boxpromptiml export`.
        runtime: `compile` spends a minute on every new size of image or batch, up to eight; then it
            is PyTorch.
        device: cpu or cuda.
        precision: bf16 is faster where the processor knows it, and not exact.

    Raises:
        UserError: The file cannot be read, or does not go with the runtime; the runtime is not
            installed, or knows neither the device nor the precision.
    """
    for name, value, known in (
        ("runtime", runtime, get_args(Runtime)),
        ("precision", precision, get_args(Precision)),
    ):
        if value not in known:
            raise UserError(f"{name} must be one of {known}, got {value!r}")
    exported = path.suffix.lower() == ".onnx"
    if runtime == "auto":
        runtime = _best_for_onnx(device, precision) if exported else "torch"
    if exported != (runtime in ("onnx", "openvino")):
        other = "auto" if exported else "torch"
        raise UserError(
            f"{path}: --runtime {runtime} does not take this kind of file: use --runtime {other}"
            + ("" if exported else ", or write an .onnx file with `boxpromptiml export`")
        )
    said = f"{runtime}, {device}, {precision}"
    if exported:
        kind = OnnxNetwork if runtime == "onnx" else OpenVinoNetwork
        exact = kind(path, device, precision)
        return Opened(exact, ModelSpec.from_dict(exact.description, str(path)), said)
    try:
        from boxpromptiml.inference.torch_network import open_torch  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path}: needs {error.name}, which is not installed; .onnx does not"
        ) from error
    network, spec = open_torch(path, runtime == "compile", device, precision == "bf16")
    return Opened(network, spec, said)


def _best_for_onnx(device: str, precision: Precision) -> Runtime:
    if device == "cpu" and (precision == "bf16" or find_spec("onnxruntime") is None):
        return "openvino" if precision == "bf16" or find_spec("openvino") is not None else "onnx"
    return "onnx"
