"""Segment Anything as a teacher: its encoder and its box decoder against the stock package.

Run it from the repository root, with glibc's allocator prevented from returning memory (its page
faults cost the stock encoder most and would inflate the ratio):

    export OMP_NUM_THREADS=2 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000
    python -m benchmarks.sam_speed [--depth 12 --rounds 3]

vit_b's widths at 1024 x 1024 with random weights, 12 blocks of which a third are global; a smaller
depth (a multiple of 3) keeps that fraction. A and B take turns in one process; times are medians of
CPU time (of all threads), ratios medians of the ratios of a round. Targets: bf16 with fast
attention at least 1.6 times stock at a mask IoU of 0.99; boxes at least 0.95 times a loop over
boxes, at any count.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.build_sam import _build_sam
from segment_anything.modeling import Sam
from torch import nn

from boxpromptiml.records import BoxArray, ImageArray, MaskArray
from boxpromptiml.teachers.config import EncoderPrecision, SamOptions
from boxpromptiml.teachers.sam import SamTeacher
from boxpromptiml.teachers.sam_encoder import encode, speed_up

SIZE = (256, 384)  # of the images that the results were measured on


def vit_b(depth: int, width: int = 768, heads: int = 12) -> Sam:
    """Random weights, positions included: they are zeros as built."""
    torch.manual_seed(0)
    sam: Sam = _build_sam(width, depth, heads, [i for i in range(depth) if i % 3 == 2])
    for name, values in sam.image_encoder.named_parameters():
        if "rel_pos" in name or name == "pos_embed":
            nn.init.normal_(values, std=0.1)
    return sam.eval().requires_grad_(False)


def an_image() -> ImageArray:
    """Blocks of colour."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (SIZE[0] // 32, SIZE[1] // 32, 3))
    return np.kron(blocks, np.ones((32, 32, 1))).astype(np.uint8)


def some_boxes(count: int) -> BoxArray:
    """Boxes of many sizes."""
    corners = np.sort(np.random.default_rng(1).uniform(0, 1, (count, 2, 2)), axis=1)
    scale = [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
    return (corners.reshape(count, 4) * scale).astype(np.float32)


def interleaved(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every variant in every round, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name in list(variants)[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            variants[name]()
            seconds[name].append(time.process_time() - start)
    return {name: values[1:] for name, values in seconds.items()}


def ratio(stock: list[float], ours: list[float]) -> float:
    """How many times faster, median over rounds."""
    return statistics.median(a / b for a, b in zip(stock, ours, strict=True))


def masks_of(predictor: SamPredictor, boxes: BoxArray) -> list[MaskArray]:
    """SAM's single mask for each box."""
    return [predictor.predict(box=box, multimask_output=False)[0][0] for box in boxes]


def encoders(depth: int, rounds: int) -> float:
    """Print the table of encoders; the ratio that is demanded."""
    stock = SamPredictor(vit_b(depth))
    fast = SamPredictor(deepcopy(stock.model))
    speed_up(fast.model.image_encoder)
    image, boxes = an_image(), some_boxes(8)
    choices: dict[str, tuple[SamPredictor, EncoderPrecision]] = {
        "stock": (stock, "fp32"),
        "our attention": (fast, "fp32"),
        "bf16": (stock, "bf16"),
        "bf16, our attention": (fast, "bf16"),
    }

    def variant(predictor: SamPredictor, precision: EncoderPrecision) -> Callable[[], None]:
        return lambda: encode(predictor, image, precision)

    seconds = interleaved({name: variant(*choice) for name, choice in choices.items()}, rounds)
    encode(stock, image, "fp32")
    expected, features = masks_of(stock, boxes), stock.features.clone()
    print(f"| encoder, {depth} blocks, 1 image | CPU s | vs stock | lowest IoU | features off |")
    print("|---|---|---|---|---|")
    for name, (predictor, precision) in choices.items():
        encode(predictor, image, precision)
        pairs = zip(masks_of(predictor, boxes), expected, strict=True)
        lowest = min(float((a & b).sum() / max((a | b).sum(), 1)) for a, b in pairs)
        off = float((predictor.features - features).norm() / features.norm())
        times = ratio(seconds["stock"], seconds[name])
        median = statistics.median(seconds[name])
        print(f"| {name} | {median:.2f} | {times:.2f} | {lowest:.4f} | {off:.1e} |")
        if lowest < 0.99:
            sys.exit(f"{name}: a mask's IoU with stock is {lowest:.4f}")
    return times


class Ready(nn.Module):
    """An encoder that has finished, so that decoding alone is timed."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.img_size = sam.image_encoder.img_size
        self.blocks = nn.ModuleList()
        self.features = torch.randn(1, 256, 64, 64)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The same features for any image."""
        return self.features


def decoders(rounds: int, counts: tuple[int, ...] = (1, 4, 16)) -> float:
    """Print the table of box decoding; the lowest of our ratios."""
    sam = vit_b(0)
    sam.image_encoder = Ready(sam)
    image, lowest = an_image(), float("inf")
    stock, batched = SamPredictor(sam), SamTeacher(sam, "vit_b", "", SamOptions(box_batch=64))
    teacher = SamTeacher(sam, "vit_b", "")
    print("| boxes an image | loop of `predict`, CPU ms a box | ours | all at once |")
    print("|---|---|---|---|")
    for count in counts:
        boxes = some_boxes(count)

        def loop(boxes: BoxArray = boxes) -> None:
            stock.set_image(image)
            for box in boxes:
                stock.predict(box=box)

        variants: dict[str, Callable[[], object]] = {
            "loop": loop,
            "ours": lambda boxes=boxes: list(teacher.propose(image, boxes)),  # type: ignore[misc]
            "batch": lambda boxes=boxes: list(batched.propose(image, boxes)),  # type: ignore[misc]
        }
        seconds = interleaved(variants, rounds)
        each = statistics.median(seconds["loop"]) / count * 1e3
        ours, batch = (ratio(seconds["loop"], seconds[name]) for name in ("ours", "batch"))
        print(f"| {count} | {each:.0f} | {ours:.2f} x | {batch:.2f} x |")
        lowest = min(lowest, ours)
    return lowest


def main() -> None:
    """Measure, print, and exit with status 1 where a demand is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=3, help="blocks; 12 is the whole vit_b")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with torch.inference_mode():
        boxes = decoders(options.rounds)
        print()
        encoder = encoders(options.depth, options.rounds)
    if encoder < 1.6 or boxes < 0.95:
        sys.exit(f"missed: encoder {encoder:.2f} (1.6), boxes {boxes:.2f} (0.95)")


if __name__ == "__main__":
    main()
