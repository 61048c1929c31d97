"""What runs a trained network: PyTorch, torch.compile, ONNX Runtime or OpenVINO.

All answer the same tensors; at precision fp32 their probabilities agree to 1e-5.
"""

import shutil
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch

from boxpromptiml.errors import UserError
from boxpromptiml.models.checkpoint import Card, load_localizer
from boxpromptiml.models.exchange import read_onnx_description
from boxpromptiml.models.inference import Network
from boxpromptiml.records import LocalizerOutput
from boxpromptiml.weights import require_device

Runtime = Literal["auto", "torch", "compile", "onnx", "openvino"]
Precision = Literal["fp32", "bf16"]


class Opened(NamedTuple):
    """A network ready to run.

    Attributes:
        network: Takes and returns tensors on `device`.
        card: What the file says of it.
        device: Of the tensors; ONNX Runtime and OpenVINO take them on the CPU in any case.
        description: Runtime, device and precision, for a person.
    """

    network: Network
    card: Card
    device: str
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
    require_device(device)
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
        card = Card.from_dict(read_onnx_description(path))
        if runtime == "onnx":
            return Opened(OnnxNetwork(path, device, precision), card, "cpu", said)
        return Opened(OpenVinoNetwork(path, device, precision), card, "cpu", said)
    network, card = load_localizer(path)
    return Opened(TorchNetwork(network, runtime, device, precision), card, device, said)


def _best_for_onnx(device: str, precision: Precision) -> Runtime:
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu and (precision == "bf16" or not _installed("onnxruntime")):
        return "openvino" if _installed("openvino") or precision == "bf16" else "onnx"
    return "onnx"


def _installed(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


class TorchNetwork:
    """A network in PyTorch, with channels last; bf16 by autocast.

    Args:
        network: In evaluation mode.
        runtime: `torch` or `compile`.
        device: Where it runs.
        precision: The residuals of the student stay in fp32.

    Attributes:
        module: The network as it was given, for its weights.
    """

    def __init__(
        self, network: torch.nn.Module, runtime: Runtime, device: str, precision: Precision
    ) -> None:
        placed = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if runtime == "compile":
            if torch.device(device).type == "cpu" and not any(map(shutil.which, ("c++", "g++"))):
                raise UserError("--runtime compile needs a C++ compiler (g++): use --runtime torch")
            placed = torch.compile(placed, dynamic=False, options={"freezing": True})
        self.module = network
        self._network = placed
        self._kind = torch.device(device).type
        self._bf16 = precision == "bf16"

    @torch.inference_mode()
    def __call__(self, image: torch.Tensor) -> LocalizerOutput:
        """Logits of inputs on the network's device."""
        with torch.autocast(self._kind, torch.bfloat16, enabled=self._bf16):
            logits, image_logit = self._network(image)
        return LocalizerOutput(logits, image_logit)


class OnnxNetwork:
    """A network in ONNX Runtime, on as many threads as PyTorch has.

    Args:
        path: `.onnx` of `boxpromptiml export`.
        device: cuda needs onnxruntime-gpu.
        precision: fp32 only.
    """

    def __init__(self, path: Path, device: str, precision: Precision) -> None:
        try:
            import onnxruntime  # noqa: PLC0415
        except ImportError as error:
            raise UserError('ONNX Runtime is not installed: pip install -e ".[export]"') from error
        if precision != "fp32":
            raise UserError("ONNX Runtime runs at fp32 here: use --runtime openvino for bf16")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; warnings concern the graph's making
        providers: list[Any] = ["CPUExecutionProvider"]
        if torch.device(device).type == "cuda":
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise UserError(
                    f"ONNX Runtime knows no {device}: pip install onnxruntime-gpu instead of "
                    "onnxruntime, or use --device cpu"
                )
            index = torch.device(device).index or 0
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": index}))
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)

    def __call__(self, image: torch.Tensor) -> LocalizerOutput:
        """Logits of inputs on the CPU."""
        inputs = {"image": image.contiguous().numpy()}
        logits, image_logit = self._session.run(["logits", "image_logit"], inputs)
        return LocalizerOutput(torch.from_numpy(logits), torch.from_numpy(image_logit))


class OpenVinoNetwork:
    """A network in OpenVINO on the CPU, on as many threads as PyTorch has.

    Args:
        path: `.onnx` of `boxpromptiml export`.
        device: cpu only.
        precision: Said in any case: by default OpenVINO takes bf16 where the processor knows it.
    """

    def __init__(self, path: Path, device: str, precision: Precision) -> None:
        try:
            import openvino  # noqa: PLC0415
        except ImportError as error:
            raise UserError('OpenVINO is not installed: pip install -e ".[openvino]"') from error
        if torch.device(device).type != "cpu":
            raise UserError(f"OpenVINO runs on the CPU here: --device {device} needs another")
        settings = {
            "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        model = core.read_model(path)
        front = _cut_front(model) if precision == "bf16" else None
        self._front: Any = None
        if front is not None:
            exact = settings | {"INFERENCE_PRECISION_HINT": "f32"}
            self._front, model = core.compile_model(front[0], "CPU", exact), front[1]
        self._model = core.compile_model(model, "CPU", settings)

    def __call__(self, image: torch.Tensor) -> LocalizerOutput:
        """Logits of inputs on the CPU."""
        inputs = [image.contiguous().numpy()]
        if self._front is not None:
            inputs.append(self._front(inputs)[0])
        logits, image_logit = (torch.from_numpy(found) for found in self._model(inputs).values())
        return LocalizerOutput(logits, image_logit)


def _cut_front(model: Any) -> tuple[Any, Any] | None:
    """A student with residuals in two: up to what enters the backbone, and from there; else None.

    The residuals live below the 8 bits that bf16 keeps of a grey level, and OpenVINO has no
    precision of a single operation: without the cut, a pixel's probability was off by 0.9.
    """
    import openvino  # noqa: PLC0415

    node = {n.get_friendly_name(): n for n in model.get_ordered_ops()}.get("residuals.divisors")
    if node is None:
        return None
    while node.get_type_name() != "Concat":  # where `Student.forward` joins them to RGB
        node = next(iter(node.output(0).get_target_inputs())).get_node()
    joined = node.output(0)
    readers = list(joined.get_target_inputs())
    shape = joined.get_partial_shape()
    entry = openvino.opset13.parameter(shape, joined.get_element_type(), "features")
    parameters, outputs = model.get_parameters(), list(model.outputs)
    front = openvino.Model([joined], parameters, "front")
    for reader in readers:
        reader.replace_source_output(entry.output(0))
    return front, openvino.Model(outputs, [*parameters, entry], "rest")
