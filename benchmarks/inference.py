"""How fast a trained localizer runs in every runtime, and whether its maps stay the same.

Run it from the repository root, on an idle machine:

    python -m benchmarks.inference --checkpoint RUN/checkpoints/last.ckpt ... [--threshold 0.5 ...]
        --manifest runs/data/test.jsonl [--threads 2] [--rounds 12] [--quick]

Prints markdown tables: every trained student in every runtime at batch 1 and 8, with the pixel F1
of its maps over the manipulated images of the manifest (the gate: within 0.005 of eager fp32), at
the threshold given for it, or its own; start-up time and peak memory of the commands; the whole
default student beside a bare timm `tiny_vit_5m_224`.

All variants take turns within a round, each after a pause in which the other runtimes' threads go
to sleep; a ratio is the median over rounds of eager's time over the variant's. Arrays go in and
come out, as in use. All run with the same allocator settings (ALLOCATOR below; glibc otherwise
returns large buffers to the kernel after every step), which the program sets by restarting itself.
Times are wall clock.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from boxpromptiml import Localizer
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.export import export
from boxpromptiml.inference.maps import Network, NetworkOutput, Precision
from boxpromptiml.inference.runtimes import Runtime, open_network
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.manifests.sources import Source, ground_truth
from boxpromptiml.metrics.pixel import f1, pixel_counts
from boxpromptiml.models.configs import StudentConfig
from boxpromptiml.models.inputs import FloatArray
from boxpromptiml.models.student import Student

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
GATE = 0.005
PAUSE = 0.05  # seconds; a thread pool spins a while after its work


def variants(checkpoint: Path, exported: Path, compiled: bool) -> dict[str, Network]:
    """Name to network; the first is what the others are compared with."""
    eager, _ = load_localizer(checkpoint)

    @torch.inference_mode()
    def plain(image: FloatArray) -> NetworkOutput:
        logits, image_logit = eager(torch.from_numpy(image))
        return NetworkOutput(logits.numpy(), image_logit.numpy())

    found: dict[str, Network] = {"eager fp32": plain}
    choices: tuple[tuple[str, Path, Runtime, Precision], ...] = (
        ("channels_last fp32 (`torch`)", checkpoint, "torch", "fp32"),
        ("channels_last bf16 (`torch`)", checkpoint, "torch", "bf16"),
        ("`compile` fp32", checkpoint, "compile", "fp32"),
        ("`compile` bf16", checkpoint, "compile", "bf16"),
        ("`onnx` fp32", exported, "onnx", "fp32"),
        ("`openvino` fp32", exported, "openvino", "fp32"),
        ("`openvino` bf16", exported, "openvino", "bf16"),
    )
    for name, file, runtime, precision in choices:
        if runtime != "compile" or compiled:
            found[name] = open_network(file, runtime, precision=precision).network
    return found


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call, taken in turns; the first two rounds are warm-up and left out."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, call in calls.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[2:] for name, values in seconds.items()}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over rounds of how many times faster `fast` was."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def speed_table(networks: dict[str, Network], shape: tuple[int, int, int], rounds: int) -> None:
    """Milliseconds and ratios at batch 1 and 8 of inputs (C, h, w)."""
    columns: dict[str, list[str]] = {name: [] for name in networks}
    for batch in (1, 8):
        image = np.random.default_rng(0).random((batch, *shape), np.float32)
        calls = {name: partial(network, image) for name, network in networks.items()}
        seconds = interleaved(calls, rounds)
        for name, values in seconds.items():
            times = ratio(seconds["eager fp32"], values)
            columns[name].append(f"{1e3 * statistics.median(values):.1f} ({times:.2f})")
    print("\n| variant | batch 1, ms (times eager) | batch 8, ms (times eager) |\n|---|---|---|")
    for name, cells in columns.items():
        print(f"| {name} | {cells[0]} | {cells[1]} |")


def accuracy_table(
    networks: dict[str, Network],
    spec: ModelSpec,
    threshold: float,
    manifest: Path,
    most: int | None,
) -> None:
    """Mean pixel F1 over the manipulated images of a manifest, and how far pixels move."""
    data = read_manifest(manifest)
    samples = [s for s in data.samples if s.label == 1][:most]
    localizers = {name: Localizer(network, spec) for name, network in networks.items()}
    scores: dict[str, list[float]] = {name: [] for name in networks}
    moved = dict.fromkeys(networks, 0.0)
    for sample in samples:
        image, _ = images.read_image(data.image_path(sample))
        truth = ground_truth(Source(data, sample))
        reference = None
        for name, localizer in localizers.items():
            prob = localizer(image)
            reference = prob if reference is None else reference
            moved[name] = max(moved[name], float(np.abs(prob - reference).max()))
            scores[name].append(f1(pixel_counts(prob, truth, threshold)))
    print(f"\n{len(samples)} manipulated images of {manifest}, threshold {threshold}:\n")
    print("| variant | pixel F1 | difference | gate | farthest pixel |\n|---|---|---|---|---|")
    base = statistics.fmean(scores["eager fp32"])
    for name, values in scores.items():
        difference = statistics.fmean(values) - base
        verdict = "held" if abs(difference) <= GATE else "MISSED"
        print(f"| {name} | {base + difference:.4f} | {difference:+.4f} | {verdict} "
              f"| {moved[name]:.1e} |")  # fmt: skip


def gmacs(network: nn.Module, image: torch.Tensor) -> float:
    """Billions of multiply-additions of one forward pass."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    return float(counter.get_total_flops()) / 2e9


def backbone_table(rounds: int) -> None:
    """The whole default student beside the bare backbone with its classifier, eager fp32."""
    student = Student(StudentConfig()).eval()
    bare = timm.create_model("tiny_vit_5m_224").eval()
    print(
        "\n| input | student, ms | bare tiny_vit_5m_224, ms | ratio | GMAC |\n|---|---|---|---|---|"
    )
    for side in (224, 512):
        image = torch.rand(1, 3, side, side)
        with torch.inference_mode():
            calls = {"student": partial(student, image), "bare": partial(bare, image)}
            seconds = interleaved(calls, rounds)
        middle = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
        times = ratio(seconds["student"], seconds["bare"])
        macs = f"{gmacs(student, image):.2f} / {gmacs(bare, image):.2f}"
        print(f"| 1 x 3 x {side} x {side} | {middle['student']:.1f} | {middle['bare']:.1f} "
              f"| {times:.2f} | {macs} |")  # fmt: skip


def command_table(files: Sequence[Path], manifest: Path, runs: int, folder: Path) -> None:
    """Wall clock and peak memory of whole processes."""
    data = read_manifest(manifest)
    photo = str(data.image_path(data.samples[0]))
    commands = {"--help": ["--help"]}
    for file in files:
        where = ["--checkpoint", str(file), "--out", str(folder / "out")]
        commands[f"localize, one image, {file.suffix}"] = ["localize", *where, "--images", photo]
    print("\n| command | s | peak memory, MB |\n|---|---|---|")
    for name, words in commands.items():
        found = [_process(words) for _ in range(runs)]
        seconds, memory = (statistics.median(values) for values in zip(*found, strict=True))
        print(f"| {name} | {seconds:.2f} | {memory:.0f} |")


_CHILD = """
import sys
from boxpromptiml.cli import main
status = main(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
sys.stderr.write(peak)
sys.exit(status)
"""


def _process(words: Sequence[str]) -> tuple[float, float]:
    """Seconds and largest resident MB of one command; getrusage would count ours as well."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _CHILD, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, int(done.stderr.rsplit("VmHWM:", 1)[1].split()[0]) / 1024


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Print all tables."""
    for number, file in enumerate(options.checkpoint):
        torch.compiler.reset()  # it compiles a function for eight sizes at most, then runs it plain
        exported = folder / f"{number}.onnx"
        export(file, exported)
        network, spec = load_localizer(file)
        shape = (3 + spec.input.extra_channels, *spec.input.size)
        macs = gmacs(network, torch.rand(1, *shape))
        print(f"\n## {file}: input {shape}, {macs:.3f} GMAC an image")
        networks = variants(file, exported, not options.quick)
        speed_table(networks, shape, options.rounds)
        threshold = options.threshold[number] if options.threshold else spec.threshold
        accuracy_table(networks, spec, threshold, options.manifest, 8 if options.quick else None)
        command_table((file, exported), options.manifest, 1 if options.quick else 5, folder)
    backbone_table(options.rounds)


def main() -> None:
    """Parse the arguments, set the allocator, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, nargs="+", required=True)
    parser.add_argument("--threshold", type=float, nargs="+", help="one for every checkpoint")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="2 rounds, 8 images, no compiling")
    options = parser.parse_args()
    wanted = ALLOCATOR | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        command = [sys.executable, "-m", "benchmarks.inference", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | wanted)  # noqa: S606 (ourselves)
    if options.quick:
        options.rounds = 2
    torch.set_num_threads(options.threads)
    settings = " ".join(f"{name}={value}" for name, value in wanted.items())
    print(
        f"torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds; {settings}"
    )
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


if __name__ == "__main__":
    main()
