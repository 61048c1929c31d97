"""Exported networks in ONNX Runtime or OpenVINO; PyTorch is not needed.

Both use as many threads as OMP_NUM_THREADS says (as PyTorch does), or else all processors that this
process may use.
"""

import os
import re
from pathlib import Path
from typing import Any

from boxpromptiml.errors import UserError
from boxpromptiml.inference.maps import NetworkOutput, Precision
from boxpromptiml.inference.spec import DESCRIPTION_KEY, OTHER_FILE, check_seal, from_json
from boxpromptiml.io.files import require_local_file
from boxpromptiml.models.inputs import FloatArray


def import_onnxruntime() -> Any:
    """The package `onnxruntime`, which reports nothing to its maker.

    Without the variable it stores an identifier of the device under ~/.cache when it is imported,
    and looks for a server of its maker some seconds later.

    Raises:
        UserError: It is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when its library is loaded
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise UserError(
            'onnxruntime is not installed: pip install "boxpromptiml[export]"'
        ) from error
    onnxruntime.disable_telemetry_events()  # where somebody has imported it before
    return onnxruntime


class OnnxNetwork:
    """A network in ONNX Runtime.

    Args:
        path: `.onnx` of `boxpromptiml export`.
        device: cuda needs onnxruntime-gpu.
        precision: fp32 only.
        threads: None: as OMP_NUM_THREADS says, or else all processors of this process.

    Attributes:
        description: The file's metadata.

    Raises:
        UserError: If ONNX Runtime is missing, does not support device or precision, or cannot read
            the file; if the file has no boxpromptiml metadata, refers to other files, or
            has other inputs and outputs than an exported network.
    """

    def __init__(
        self, path: Path, device: str, precision: Precision, threads: int | None = None
    ) -> None:
        onnxruntime = import_onnxruntime()
        if precision != "fp32":
            raise UserError("ONNX Runtime runs at fp32 here: use --runtime openvino for bf16")
        providers: list[Any] = ["CPUExecutionProvider"]
        if (index := _gpu_index(device)) is not None:
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise UserError(
                    f"ONNX Runtime does not support {device}: install onnxruntime-gpu instead of "
                    "onnxruntime, or use --device cpu"
                )
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": index}))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or _threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # processor time
        options.log_severity_level = 3  # errors; warnings concern the graph's making
        options.add_session_config_entry("session.load_model_format", "ONNX")
        data = _read(path)
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=providers)
        except Exception as error:  # the library's own types
            raise UserError(_unreadable(path, "ONNX Runtime", error)) from error
        said = self._session.get_modelmeta().custom_metadata_map
        self.description = from_json(said.get(DESCRIPTION_KEY), path)
        self._path = path
        ends = (self._session.get_inputs(), self._session.get_outputs())
        _check_ends(path, *({one.name: _float_rank(one) for one in side} for side in ends))

    def __call__(self, image: FloatArray) -> NetworkOutput:
        """Logits of inputs (B, C, h, w)."""
        try:
            found = self._session.run(["logits", "image_logit"], {"image": image})
        except Exception as error:  # the library's own types
            raise UserError(_unreadable(self._path, "ONNX Runtime", error)) from error
        return NetworkOutput(*found)


class OpenVinoNetwork:
    """A network in OpenVINO on the CPU.

    Args:
        path: `.onnx` of `boxpromptiml export`.
        device: cpu only.
        precision: Always set explicitly: OpenVINO's default is bf16 where the processor supports
            it.
        threads: None: see the module.

    Attributes:
        description: The file's metadata.

    Raises:
        UserError: If OpenVINO is missing, does not support the device, or cannot read the file; if
            the file has no boxpromptiml metadata, refers to other files, or
            has other inputs and outputs than an exported network.
    """

    def __init__(
        self, path: Path, device: str, precision: Precision, threads: int | None = None
    ) -> None:
        try:
            import openvino  # noqa: PLC0415
        except ImportError as error:
            raise UserError(
                'OpenVINO is not installed: pip install "boxpromptiml[openvino]"'
            ) from error
        if _gpu_index(device) is not None:
            raise UserError(f"OpenVINO runs on the CPU here: --device {device} needs another")
        settings = {
            "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
            "INFERENCE_NUM_THREADS": threads or _threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        data = _read(path)
        try:
            model = core.read_model(data)
        except RuntimeError as error:
            raise UserError(_unreadable(path, "OpenVINO", error)) from error
        self.description = from_json(_openvino_metadata(model), path)
        _check_ends(
            path,
            *(
                {one.get_any_name(): one.get_partial_shape().rank.get_length() for one in side}
                for side in (model.inputs, model.outputs)
            ),
        )
        front = _cut_front(model) if precision == "bf16" else None
        self._front: Any = None
        self._path = path
        try:
            if front is not None:
                exact = settings | {"INFERENCE_PRECISION_HINT": "f32"}
                self._front, model = core.compile_model(front[0], "CPU", exact), front[1]
            self._model = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise UserError(_unreadable(path, "OpenVINO", error)) from error

    def __call__(self, image: FloatArray) -> NetworkOutput:
        """Logits of inputs (B, C, h, w)."""
        inputs = [image]
        try:
            if self._front is not None:
                inputs.append(self._front(inputs)[0])
            return NetworkOutput(*self._model(inputs).values())
        except RuntimeError as error:
            raise UserError(_unreadable(self._path, "OpenVINO", error)) from error


_INPUTS = {"image": 4}
_OUTPUTS = {"logits": 4, "image_logit": 1}


def _check_ends(path: Path, inputs: dict[str, int], outputs: dict[str, int]) -> None:
    """UserError unless names and ranks are those that `boxpromptiml export` gives."""
    if inputs != _INPUTS or outputs != _OUTPUTS:
        raise UserError(
            f"{path}: takes {_shown(inputs)} and gives {_shown(outputs)}; it should take "
            f"{_shown(_INPUTS)} and give {_shown(_OUTPUTS)}: create it with `boxpromptiml export`"
        )


def _float_rank(end: Any) -> int:
    return len(end.shape or ()) if end.type == "tensor(float)" else -1


def _shown(ranks: dict[str, int]) -> str:
    return ", ".join(f"{name} (rank {rank})" for name, rank in ranks.items())[:200] or "nothing"


def _read(path: Path) -> bytes:
    """Read a file and make sure that it refers to no other files.

    Initializers, constants and nested graphs can take their values from other files; an untrusted
    graph could name any. Every such reference needs a certain key, so a file without these letters
    has none. `boxpromptiml export` keeps the letters out of the metadata.

    Raises:
        UserError: If it is not a regular file, contains the key, or its bytes have changed.
    """
    require_local_file(path)
    data = path.read_bytes()
    if OTHER_FILE.encode() in data:
        raise UserError(f"{path}: keeps its weights in other files; export it as a single file")
    check_seal(data, path)
    return data


def _unreadable(path: Path, runtime: str, error: Exception) -> str:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return f"{path}: is damaged or not an ONNX file that {runtime} can run ({reason[:200]})"


def _openvino_metadata(model: Any) -> str | None:
    """The metadata, from OpenVINO's runtime information (`rt_info`) of the original framework."""
    place = ["framework", DESCRIPTION_KEY]
    return str(model.get_rt_info(place).astype(str)) if model.has_rt_info(place) else None


def _gpu_index(device: str) -> int | None:
    """Index of a GPU; None for the CPU."""
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if found is None:
        raise UserError(f"device {device!r} is unknown; use cpu, cuda or cuda:0")
    return None if device == "cpu" else int(found[1] or 0)


def _threads() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(wanted) if wanted.isdigit() and int(wanted) else len(os.sched_getaffinity(0))


def _cut_front(model: Any) -> tuple[Any, Any] | None:
    """Split a student with residuals before its backbone into two graphs; None for others.

    The residuals are smaller than the 8 bits that bf16 keeps of a grey value, and OpenVINO has no
    precision per operation: without the split, a pixel's probability was off by 0.9.
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
