"""How fast a student trains, by precision, memory layout and glibc's allocator.

Run it from the repository root, on an idle machine:

    python -m benchmarks.training [--threads 2] [--rounds 5]

A step is forward pass, loss, backward pass and AdamW on random images in memory. All variants take
turns within a round; ratios are medians over rounds. Each set of variants runs twice, in separate
processes: with glibc as it is, which returns large buffers to the kernel after every step and
faults them in again, and with ALLOCATOR, which keeps them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from copy import deepcopy

import torch
from torch import nn

from boxpromptiml.losses import distillation_loss
from boxpromptiml.models.configs import FusionConfig, StudentConfig
from boxpromptiml.models.student import Student

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
NATIVE = StudentConfig(
    "mobilenetv3_small_100", "srm", stages=(1, 2, 3), fusion=FusionConfig(width=32, prototypes=32)
)
STUDENTS = {  # configuration, images per step, (h, w)
    "student.yaml (TinyViT)": (StudentConfig(), 16, (224, 224)),
    "native.yaml (MobileNetV3)": (NATIVE, 8, (224, 352)),
}
VARIANTS = {  # bf16, channels last
    "fp32": (False, False),
    "fp32, channels_last": (False, True),
    "bf16": (True, False),
    "bf16, channels_last (ours)": (True, True),
}


class Step:
    """One variant: a copy of the student, its optimiser and a batch."""

    def __init__(
        self, student: Student, batch: int, size: tuple[int, int], bf16: bool, channels_last: bool
    ) -> None:
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.bf16 = bf16
        self.student = self._placed(deepcopy(student))
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-4)
        self.image = torch.rand(batch, 3, *size)
        self.target = (torch.rand(batch, 1, *size) > 0.9).float()
        self.valid = torch.ones_like(self.target, dtype=torch.bool)
        self.weight = torch.ones(batch)

    def _placed(self, student: Student) -> nn.Module:
        return student.to(memory_format=self.layout)

    def __call__(self) -> None:
        """Do it, as `DistillTask` and Lightning's `bf16-mixed` do."""
        image = self.image.contiguous(memory_format=self.layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            logits, _ = self.student(image)
            loss = distillation_loss(logits, self.target, self.valid, self.weight, 1.0)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()


def measure(name: str, allocator: str, rounds: int) -> None:
    """Print the rows of one student."""
    config, batch, size = STUDENTS[name]
    torch.manual_seed(0)
    student = Student(config).train()
    steps = {
        variant: Step(student, batch, size, *switches) for variant, switches in VARIANTS.items()
    }
    wall: dict[str, list[float]] = {variant: [] for variant in steps}
    cpu: dict[str, list[float]] = {variant: [] for variant in steps}
    for turn in range(rounds + 1):
        for variant in list(steps)[:: 1 if turn % 2 else -1]:
            start = (time.perf_counter(), time.process_time())
            steps[variant]()
            if turn:  # the first round warms up
                wall[variant].append(time.perf_counter() - start[0])
                cpu[variant].append(time.process_time() - start[1])
    for variant in steps:
        seconds = statistics.median(wall[variant])
        by_wall, by_cpu = (
            statistics.median(a / b for a, b in zip(times["fp32"], times[variant], strict=True))
            for times in (wall, cpu)
        )
        print(
            f"| {name} | {allocator} | {variant} | {seconds:.2f} | {batch / seconds:.1f} "
            f"| {by_wall:.2f} | {by_cpu:.2f} |",
            flush=True,
        )


def main() -> None:
    """Run every student under both allocators."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--student", choices=list(STUDENTS), help=argparse.SUPPRESS)
    parser.add_argument("--allocator", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.student:
        torch.set_num_threads(options.threads)
        measure(options.student, options.allocator, options.rounds)
        return
    print(f"torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds\n")
    print(
        "| configuration | allocator | variant | s per step | images/s | times fp32 | by CPU time |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    own = ["--threads", str(options.threads), "--rounds", str(options.rounds)]
    for student in STUDENTS:
        for allocator, settings in (("glibc's", {}), ("kept", ALLOCATOR)):
            words = ["--student", student, "--allocator", allocator, *own]
            environment = os.environ | settings | {"OMP_NUM_THREADS": str(options.threads)}
            command = [sys.executable, "-m", "benchmarks.training", *words]
            subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()
