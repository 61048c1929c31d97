"""`boxpromptiml complexity`: size, operations, latency and memory of a network."""

import ctypes
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import build_network, load_localizer
from boxpromptiml.inference.spec import SCHEMA_VERSION, ModelSpec
from boxpromptiml.io.files import write_json
from boxpromptiml.io.old_names import renamed
from boxpromptiml.io.options import needs
from boxpromptiml.io.outputs import COMPLEXITY
from boxpromptiml.io.strict_yaml import read_yaml
from boxpromptiml.io.weights import found_device, require_device

_MAX_SIDE = 8192


@dataclass(frozen=True, slots=True)
class Complexity:
    """Cost of one image.

    Attributes:
        parameters: Number of weights, including those that are not trained.
        multiply_adds: Multiply-adds of convolutions, matrix products and attention; half of
            PyTorch's FLOPs.
        seconds: Median wall clock of a forward pass.
        peak_memory: Bytes that a forward pass takes beyond the loaded network.
        size: Height and width of the input, in pixels.
        device: Device and, for a CPU, the number of threads.
    """

    parameters: int
    multiply_adds: int
    seconds: float
    peak_memory: int
    size: tuple[int, int]
    device: str


@needs("threads", "device", "cpu", "auto")
def complexity(
    checkpoint: Path,
    size: list[int] | None = None,
    device: str = "auto",
    threads: int = 1,
    repeats: int = 10,
    out: Path | None = None,
) -> None:
    """Print parameters, multiply-adds, latency and peak memory of a network for one image.

    Args:
        checkpoint: A checkpoint of `boxpromptiml fit`, .safetensors of `boxpromptiml export`, or a
            YAML configuration of `fit`, whose network is built with random weights.
        size: Height and width of the input; the model's own by default.
        device: cpu or cuda; auto: a GPU if there is one.
        threads: Number of threads on a CPU.
        repeats: Number of timed forward passes, after two for warm-up; the median is reported.
        out: JSON file to write, in addition.

    Raises:
        UserError: If the file, the size or the device cannot be used.
    """
    if repeats < 1 or not 1 <= threads <= 1024:
        raise UserError("--repeats must be 1 or more, --threads from 1 to 1024")
    if size is not None and not (len(size) == 2 and 1 <= min(size) <= max(size) <= _MAX_SIDE):
        raise UserError(f"--size must be two numbers from 1 to {_MAX_SIDE}, got {size}")
    if out is not None:
        COMPLEXITY.require(out)
    device = found_device(device)
    require_device(device)
    network, spec = _network(checkpoint)
    torch.set_num_threads(threads)
    channels = 3 + spec.input.extra_channels
    height, width = size or spec.input.size
    found = measure(network.to(device), channels, (height, width), repeats)
    sys.stdout.write(
        f"{checkpoint}: {spec.kind}, {spec.network.backbone}\n"
        f"parameters     {found.parameters / 1e6:.3f} M\n"
        f"multiply-adds  {found.multiply_adds / 1e9:.3f} G at {height} x {width}\n"
        f"latency        {found.seconds * 1e3:.1f} ms on {found.device}\n"
        f"peak memory    {found.peak_memory / 1e6:.0f} MB beyond the network\n"
    )
    if out is not None:
        write_json(out, {"schema_version": 1, "model": str(checkpoint)} | asdict(found))


def measure(
    network: torch.nn.Module, channels: int, size: tuple[int, int], repeats: int = 10
) -> Complexity:
    """Run a network on random images (1, channels, *size).

    Args:
        network: The network on its device; put in evaluation mode.
        channels: Number of input channels.
        size: Height and width of its input, in pixels.
        repeats: Timed forward passes.
    """
    weights = list(network.parameters())
    device = weights[0].device
    image = torch.rand(1, channels, *size, device=device)
    network.eval()
    with torch.inference_mode():
        peak = _peak_memory(network, image)  # first: what was freed before is not counted again
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    with torch.inference_mode():
        seconds = [_timed(network, image) for _ in range(repeats + 1)][1:]
    where = f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
    return Complexity(
        sum(weight.numel() for weight in weights),
        int(counter.get_total_flops()) // 2,
        statistics.median(seconds),
        peak,
        size,
        where,
    )


def _timed(network: torch.nn.Module, image: torch.Tensor) -> float:
    start = time.perf_counter()
    network(image)
    if image.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _peak_memory(network: torch.nn.Module, image: torch.Tensor) -> int:
    if image.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        network(image)
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size from here on
    network(image)
    return max(_resident("VmHWM") - before, 0)


def _resident(field: str) -> int:
    """Resident memory of this process in bytes: VmRSS (now) or VmHWM (peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _network(model: Path) -> tuple[torch.nn.Module, ModelSpec]:
    if model.suffix.lower() == ".onnx":
        raise UserError(f"{model}: give the checkpoint that it was exported from")
    if model.suffix.lower() not in (".yaml", ".yml"):
        return load_localizer(model)
    spec = _configured(model)
    return build_network(spec).eval(), spec


def _configured(path: Path) -> ModelSpec:
    """The network and input of a configuration of `fit`; omitted settings have their defaults."""
    config: Any = renamed(read_yaml(path))
    try:
        task, data = config["model"], config.get("data") or {}
        settings = task.get("init_args") or {}
        kind = "wcbnet" if task["class_path"].endswith("ImageLabelTask") else "student"
        own = settings.get("network")
        values = {
            "schema_version": SCHEMA_VERSION,
            **({"own": own} if own else {kind: settings.get(kind) or {}}),
            "input": data.get("input") or {},
            "threshold": settings.get("threshold", 0.5),
            "cam": settings.get("cam") or {},
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: has no model with a class_path, as `fit` takes it") from error
    return ModelSpec.from_dict(values, str(path))
