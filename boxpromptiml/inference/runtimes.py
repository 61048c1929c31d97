"""Runtimes of a trained network: PyTorch, torch.compile, ONNX Runtime, OpenVINO.

All have the same inputs and outputs; at precision fp32 their probabilities agree to 1e-5. PyTorch
is imported only for its own files.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from boxpromptiml.errors import UserError
from boxpromptiml.inference.isolated_network import IsolatedNetwork
from boxpromptiml.inference.maps import Network, Precision
from boxpromptiml.inference.onnx_networks import OnnxNetwork, OpenVinoNetwork
from boxpromptiml.inference.spec import ModelSpec

Runtime = Literal["auto", "torch", "compile", "onnx", "openvino"]


class OpenedNetwork(NamedTuple):
    """A network ready to run.

    Attributes:
        network: The student or WCBnet.
        spec: The model spec in the file.
        description: Runtime, device and precision, as text.
    """

    network: Network
    spec: ModelSpec
    description: str


def open_network(
    path: Path,
    runtime: Runtime = "auto",
    device: str = "cpu",
    precision: Precision = "fp32",
    threads: int | None = None,
    isolate: bool = False,
) -> OpenedNetwork:
    """Load a localizer's file into a runtime.

    `auto` is PyTorch for checkpoints and `.safetensors`. For `.onnx` it is ONNX Runtime, and
    OpenVINO for bf16 on a CPU or where ONNX Runtime is not installed.

    Args:
        path: A checkpoint of `boxpromptiml fit`, or a file of `boxpromptiml export`.
        runtime: `compile` spends a minute on every new size of image or batch, for up to eight
            sizes; after that it is plain PyTorch.
        device: cpu or cuda.
        precision: bf16 is faster where the processor supports it, and not exact.
        threads: On a CPU; None: what OMP_NUM_THREADS says, else every processor. PyTorch's are
            those of the whole process, and stay as they are for None.
        isolate: Run an `.onnx` file in a child process, under limits of time and memory, as is
            advisable for a stranger's; see `isolated_network`.

    Raises:
        UserError: If the file cannot be read or does not match the runtime, or if the runtime is
            not installed or does not support device or precision.
    """
    if threads is not None and not 1 <= threads <= 1024:
        raise UserError(f"threads must be from 1 to 1024, got {threads}")
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
            f"{path}: --runtime {runtime} does not accept this kind of file: use --runtime {other}"
            + ("" if exported else ", or write an .onnx file with `boxpromptiml export`")
        )
    said = f"{runtime}, {device}, {precision}"
    if exported:
        kind = OnnxNetwork if runtime == "onnx" else OpenVinoNetwork
        exact: OnnxNetwork | OpenVinoNetwork | IsolatedNetwork
        if isolate and device == "cpu":
            exact = IsolatedNetwork(kind.__name__, path, device, precision, threads)
        else:
            exact = kind(path, device, precision, threads)
        return OpenedNetwork(exact, ModelSpec.from_dict(exact.description, str(path)), said)
    try:
        from boxpromptiml.inference.checkpoint import open_torch  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path}: needs {error.name}, which is not installed; .onnx does not"
        ) from error
    network, spec = open_torch(path, runtime == "compile", device, precision == "bf16", threads)
    return OpenedNetwork(network, spec, said)


def _best_for_onnx(device: str, precision: Precision) -> Runtime:
    if device == "cpu" and (precision == "bf16" or find_spec("onnxruntime") is None):
        return "openvino" if precision == "bf16" or find_spec("openvino") is not None else "onnx"
    return "onnx"


def default_threads() -> int:
    """OMP_NUM_THREADS, else the number of processors that are idle now, at least one.

    On a machine that others use, threads beyond the idle processors wait for each other: a
    photograph of 12 megapixels took 43 s in one thread and more than 300 s in two.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    processors = len(os.sched_getaffinity(0))
    return max(1, round(processors - os.getloadavg()[0]))
