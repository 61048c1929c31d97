"""Whether a GPU gives what the CPU gives, and how fast it is.

Run it from the repository root, on a machine with a GPU and nothing else to do:

    python -m benchmarks.gpu_check --out runs/gpu [--workers 8]

Takes ten minutes at most and downloads nothing. gpu.md, written again after every part, has two
tables: how far the device is from the CPU (shipped student; SAM vit_b with random weights of a
fixed seed), and speed and memory. The exit status is 1 if a limit is missed. `--device cpu` runs
the same code at a small size, without torch.compile.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from segment_anything import SamPredictor

from benchmarks.input_pipeline import large_images
from benchmarks.sam_speed import an_image, some_boxes, vit_b
from boxpromptiml import DistillTask, LocalizationData
from boxpromptiml.inference.checkpoint import load_localizer, open_torch
from boxpromptiml.inference.shipped import shipped_student
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io import images
from boxpromptiml.io.files import write_text
from boxpromptiml.losses import distillation_loss
from boxpromptiml.manifests.manifest import Header, Manifest, read_manifest, write_manifest
from boxpromptiml.models.configs import StudentConfig
from boxpromptiml.records import Box, Sample
from boxpromptiml.teachers.config import SamOptions
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.pseudo_masks import run_job
from boxpromptiml.teachers.sam import SamTeacher
from boxpromptiml.teachers.sam_encoder import encode

_WARM_UP = 5  # training steps that are not counted


@dataclass(frozen=True)
class Work:
    """How much is done.

    Attributes:
        sam: Depth, width and heads of SAM's encoder.
        photos: Training images.
        masks: Images whose pseudo-masks are compared.
        steps: Training steps.
        batch: Images a training step and a batch of inference.
        size: (h, w) of the student's inputs in the checks and in inference.
        rounds: Batches of inference.
        compiled: Also through torch.compile.
    """

    sam: tuple[int, int, int]
    photos: int
    masks: int
    steps: int
    batch: int
    size: tuple[int, int]
    rounds: int
    compiled: bool


FULL = Work((12, 768, 12), photos=64, masks=4, steps=100, batch=32, size=(256, 384), rounds=20,
            compiled=True)  # fmt: skip
SMALL = Work((1, 32, 1), photos=2, masks=1, steps=_WARM_UP + 1, batch=1, size=(64, 96), rounds=1,
             compiled=False)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """A row of the first table: `off` may be at most `limit`."""

    name: str
    off: float
    limit: float


@dataclass(frozen=True)
class Speed:
    """A row of the second table; None where it is not measured."""

    name: str
    images_a_second: float
    waiting: float | None  # fraction of the time in which the next batch is waited for
    peak: int | None  # bytes of GPU memory


def _relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return float((ours.cpu() - reference).norm() / reference.norm())


def _exact(exact: bool) -> None:
    """Whether float32 products have all 24 bits; PyTorch gives convolutions 11 by default."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = not exact


def student_checks(device: str, work: Work) -> Iterator[Check]:
    """Maps of the shipped student, and loss and gradients of one training step."""
    file = shipped_student()
    fed = np.random.default_rng(0).random((min(work.batch, 4), 3, *work.size), np.float32)
    reference = torch.from_numpy(open_torch(file, False, "cpu", False)[0](fed).logits).sigmoid()
    for bf16, exact, limit, said in (
        (False, True, 1e-4, "fp32"),
        (False, False, 5e-3, "fp32 as `localize` runs it (TF32 convolutions)"),
        (True, False, 5e-2, "bf16"),
    ):
        _exact(exact)
        logits = open_torch(file, False, device, bf16)[0](fed).logits
        off = float((torch.from_numpy(logits).sigmoid() - reference).abs().max())
        yield Check(f"maps of the student, {said}: farthest probability", off, limit)
    _exact(True)
    network = load_localizer(file)[0].train()
    loss, gradients = _step(deepcopy(network), torch.from_numpy(fed), "cpu")
    other_loss, others = _step(network, torch.from_numpy(fed), device)
    yield Check("loss of a training step, relative", _relative(other_loss, loss), 1e-4)
    yield Check("its gradients, relative (L2)", _relative(others, gradients), 1e-2)


def _step(
    network: torch.nn.Module, fed: torch.Tensor, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and all gradients in one vector, without dropout."""
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    image = fed.to(device)
    target = (image[:, :1] > 0.9).float()
    logits, _ = network.to(device)(image)
    valid = torch.ones_like(target, dtype=torch.bool)
    loss = distillation_loss(logits, target, valid, torch.ones(len(fed), device=device), 1.0)
    loss.backward()
    found = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(found).cpu()


def teacher_checks(device: str, work: Work, folder: Path) -> Iterator[Check]:
    """SAM's encoder and the pseudo-masks of a job."""
    _exact(True)
    sam = vit_b(*work.sam)
    features = []
    for where in ("cpu", device):
        predictor = SamPredictor(deepcopy(sam).to(where))
        encode(predictor, an_image(), "fp32")
        features.append(predictor.features)
    yield Check("features of SAM's encoder, relative (L2)", _relative(*features[::-1]), 1e-3)
    manifest = _boxed_images(folder, work.masks)
    jobs = []
    for name, where in (("reference", "cpu"), ("first", device), ("second", device)):
        teacher = SamTeacher(deepcopy(sam), "vit_b", "0" * 64, SamOptions(device=where))
        run_job(manifest, folder / name, teacher, Consensus())
        jobs.append(sorted((folder / name / "masks").glob("*.png")))
    reference, first, second = jobs
    differ = sum(a.read_bytes() != b.read_bytes() for a, b in zip(first, second, strict=True))
    yield Check("pseudo-masks whose bytes differ between two jobs of the device", differ, 0)
    pairs = [
        (images.read_image(a)[0], images.read_image(b)[0])
        for a, b in zip(first, reference, strict=True)
    ]
    moved = max(float((a != b).mean()) for a, b in pairs)
    yield Check("pixels of a pseudo-mask that differ from the CPU's, fraction", moved, 1e-2)


def _boxed_images(folder: Path, count: int) -> Manifest:
    samples = []
    for number in range(count):
        image = np.roll(an_image(), 32 * number, axis=1)
        images.write_png(folder / f"{number}.png", image)
        boxes = tuple(Box(*map(float, box)) for box in some_boxes(2))
        samples.append(
            Sample(str(number), "made", "train", str(number), f"{number}.png", image.shape[:2], 1,
                   boxes)
        )  # fmt: skip
    write_manifest(folder / "boxes.jsonl", Header(), samples)
    return read_manifest(folder / "boxes.jsonl")


def _peak(device: str) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device != "cpu" else None


def _reset_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


class Clock(pl.Callback):
    """Seconds in and between the training steps."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._starts: list[float] = []
        self._ends: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """The batch is on the device."""
        self._starts.append(time.perf_counter())

    def on_train_batch_end(self, *_: Any) -> None:
        """The optimiser has stepped."""
        _synchronize(self._device)
        self._ends.append(time.perf_counter())

    def result(self) -> tuple[float, float]:
        """Seconds a step, and the fraction of them before the step starts."""
        total = self._ends[-1] - self._ends[_WARM_UP - 1]
        starts, ends = self._starts[_WARM_UP:], self._ends[_WARM_UP - 1 : -1]
        waited = sum(start - end for start, end in zip(starts, ends, strict=True))
        return total / len(starts), waited / total


def training_speed(
    spec: ModelSpec, device: str, work: Work, workers: int, folder: Path
) -> Iterator[Speed]:
    """`fit` in bf16 on JPEGs of 1536 x 1024 from disk."""
    large_images(folder, work.photos)
    manifest = read_manifest(folder / "train.jsonl")
    samples = [
        replace(manifest.samples[i % len(manifest.samples)], id=str(i))
        for i in range(work.steps * work.batch)
    ]
    write_manifest(folder / "train.jsonl", manifest.header, samples)
    data = LocalizationData(
        [folder / "train.jsonl"], [folder / "val.jsonl"], supervision="box",
        input=spec.input, batch_size=work.batch, num_workers=workers,
    )  # fmt: skip
    if not isinstance(spec.network, StudentConfig):
        raise TypeError("the shipped localizer is a student")
    task = DistillTask(spec.network, spec.input, dice_weight=1.0, image_weight=0.2)
    clock = Clock(device)
    _reset_peak(device)
    trainer = pl.Trainer(
        accelerator="cpu" if device == "cpu" else "gpu", devices=1, precision="bf16-mixed",
        max_epochs=1, limit_val_batches=0, callbacks=[clock], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    seconds, waiting = clock.result()
    height, width = spec.input.size
    name = f"training, bf16, {work.batch} crops of {height} x {width}, {workers} workers"
    yield Speed(name, work.batch / seconds, waiting, _peak(device))


def inference_speed(device: str, work: Work) -> Iterator[Speed]:
    """The shipped student from arrays to arrays."""
    fed = np.random.default_rng(0).random((work.batch, 3, *work.size), np.float32)
    for compiled in (False, True)[: 1 + work.compiled]:
        for bf16 in (False, True):
            _reset_peak(device)
            network = open_torch(shipped_student(), compiled, device, bf16)[0]
            seconds = [_seconds(partial(network, fed)) for _ in range(work.rounds + 2)][2:]
            how = ("bf16" if bf16 else "fp32") + (", compiled" if compiled else "")
            name = f"inference, {how}, {work.batch} of {work.size[0]} x {work.size[1]}"
            yield Speed(name, work.batch / statistics.median(seconds), None, _peak(device))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def table(device: str, checks: list[Check], speeds: list[Speed]) -> str:
    """The page."""
    name = "CPU" if device == "cpu" else torch.cuda.get_device_name(device)
    lines = [f"{name}, torch {torch.__version__}, {os.cpu_count()} processors", ""]
    lines += ["| device against CPU | limit | reached | |", "|---|---|---|---|"]
    for check in checks:
        held = "held" if check.off <= check.limit else "**missed**"
        lines.append(f"| {check.name} | {check.limit:g} | {check.off:.1e} | {held} |")
    lines += ["", "| job | images/s | waits for data | peak, MiB |", "|---|---|---|---|"]
    for speed in speeds:
        waiting = "-" if speed.waiting is None else f"{100 * speed.waiting:.0f} %"
        peak = "-" if speed.peak is None else f"{speed.peak / 2**20:,.0f}"
        lines.append(f"| {speed.name} | {speed.images_a_second:.1f} | {waiting} | {peak} |")
    return "\n".join(lines) + "\n"


def check(device: str, work: Work, workers: int, out: Path) -> bool:
    """Do everything, print and write gpu.md; whether all limits are held."""
    checks: list[Check] = []
    speeds: list[Speed] = []
    spec = load_localizer(shipped_student())[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: tuple[Iterator[Check | Speed], ...] = (
            student_checks(device, work),
            training_speed(spec, device, work, workers, folder),
            inference_speed(device, work),
            teacher_checks(device, work, folder / "teacher"),
        )
        for part in parts:
            for row in part:
                (checks if isinstance(row, Check) else speeds).append(row)  # type: ignore[arg-type]
                print(row, flush=True)
            write_text(out / "gpu.md", table(device, checks, speeds))
    print(table(device, checks, speeds))
    return all(row.off <= row.limit for row in checks)


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.md")
    parser.add_argument("--device", default="cuda", help="cpu for a rehearsal")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1))
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU; --device cpu rehearses")
    work = SMALL if options.device == "cpu" else FULL
    if not check(options.device, work, options.workers, options.out):
        sys.exit("a limit is missed")


if __name__ == "__main__":
    main()
