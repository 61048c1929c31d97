"""Training images per second and core, from files and from `data.cache`, and the cost of setup.

Run it from the repository root:

    OMP_NUM_THREADS=1 python -m benchmarks.input_pipeline [--photos FOLDER] [--rounds 5]
    OMP_NUM_THREADS=1 python -m benchmarks.input_pipeline --setup 1000 100000 1000000

FOLDER is laid out for `data_prep import --dataset folder`; with or without it, 64 images of
1536 x 1024 are generated too. Only the loader runs, no network: 224 x 224, flips, filled boxes,
in this process.
Both sides take turns in epochs of the same images; batches must be equal bit for bit. Times are CPU
time with warm file caches; the ratio is that of the medians. `--setup` measures
`LocalizationData.setup("fit")` on that many rows, whose images need not exist, in a process of its
own: CPU seconds, the largest resident size, and the private memory that stays.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.import_speed import rows
from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Header, write_manifest
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Box, Sample, Split
from data_prep.import_dataset import import_dataset

LARGE = 64


def large_images(root: Path, count: int = LARGE) -> None:
    """Manifests of JPEGs with photograph-like noise, about 200 kB each."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count + 2):
        coarse = rng.integers(0, 256, (16, 24, 3)).astype(np.uint8)
        smooth = np.kron(coarse, np.ones((64, 64, 1), np.uint8)).astype(np.int16)
        noisy = (smooth + rng.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8)
        path = root / f"{number}.jpg"
        images.write_jpeg(path, noisy, 85)
        sha256, name = images.probe(path).sha256, str(number)
        boxes = (Box(200, 200, 900, 800),)
        samples.append(
            Sample(name, "made", "train", name, path.name, (1024, 1536), 1, boxes, mask="none.png",
                   image_sha256=sha256)
        )  # fmt: skip
    write_manifest(root / "train.jsonl", Header(), samples[:count])
    write_manifest(root / "val.jsonl", Header(), (replace(s, split="val") for s in samples[count:]))


def photographs(source: Path, root: Path) -> None:
    """Manifests of the photographs in FOLDER/train and FOLDER/val."""
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        import_dataset("folder", source / split, root / f"{split}.jsonl", split=split)


def data_of(root: Path, cache: Path | None = None) -> LocalizationData:
    """The data module of the images below `root`."""
    return LocalizationData(
        [root / "train.jsonl"], [root / "val.jsonl"], supervision="box",
        input=NetworkInput("resize", (224, 224)), cache=cache,
    )  # fmt: skip


def seconds(data: LocalizationData, epoch: int) -> float:
    """CPU seconds of an epoch."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    start = time.process_time()
    for _ in loader:
        pass
    return time.process_time() - start


def require_equal(ours: DataLoader[Any], theirs: DataLoader[Any]) -> int:
    """Number of images of an epoch; exits if any batch differs. Also warms files and caches."""
    count = 0
    for a, b in zip(ours, theirs, strict=True):
        if a["id"] != b["id"] or not all(
            torch.equal(a[key], b[key]) for key in ("image", "target", "valid")
        ):
            sys.exit("the batches differ")
        count += len(a["id"])
    return count


def compare(name: str, root: Path, rounds: int) -> None:
    """Print one row of the table."""
    plain, cached = data_of(root), data_of(root, root / "cache")
    start = time.process_time()
    plain.setup("fit")
    middle = time.process_time()
    cached.setup("fit")
    filling = time.process_time() - middle - (middle - start)
    count = require_equal(plain.train_dataloader(), cached.train_dataloader())
    pairs = [(seconds(plain, n), seconds(cached, n)) for n in range(1, rounds + 1)]
    files, cache = (count / statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    print(
        f"| {name} | {count} | {files:.0f} | {cache:.0f} | **{cache / files:.2f}** | "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f} | {filling / count * 1e3:.1f} |"
    )


def measure_setup(counts: list[int], folder: Path) -> None:
    """Print a table of what `setup("fit")` costs, each in a process of its own."""
    print("| rows | CPU s | largest MiB | private MiB after |\n|---|---|---|---|")
    for count in counts:
        few = (replace(s, image_sha256=None, split="val", mask="m.png") for s in rows(500))
        val = (replace(s, id=f"v/{s.id}", group=f"v/{s.group}") for s in few)
        write_manifest(folder / "train.jsonl", Header(), rows(count))
        write_manifest(folder / "val.jsonl", Header(), val)
        command = [sys.executable, "-m", "benchmarks.input_pipeline", "--only_setup", str(folder)]
        subprocess.run(command, check=True)


def memory(file: str, name: str) -> float:
    """MiB of this process; not by `getrusage`, which counts what the parent had at the fork."""
    lines = Path(f"/proc/self/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def only_setup(root: Path) -> None:
    """Entry point of the process that `measure_setup` starts."""
    data = data_of(root)
    start = time.process_time()
    data.setup("fit")
    seconds = time.process_time() - start
    largest, after = memory("status", "VmHWM"), memory("smaps_rollup", "Private_Dirty")
    count = len(data.train_dataloader().dataset)  # type: ignore[arg-type]
    print(f"| {count:,} | {seconds:.1f} | {largest:.0f} | {after:.0f} |")


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--setup", type=int, nargs="+")
    parser.add_argument("--only_setup", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only_setup:
        only_setup(options.only_setup)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.setup:
            measure_setup(options.setup, folder)
            return
        print("| images | number | files, images/s | cache, images/s | ratio | of the rounds "
              "| filling, ms an image |\n|---|---|---|---|---|---|---|")  # fmt: skip
        if options.photos:
            (folder / "photos").mkdir()
            photographs(options.photos, folder / "photos")
            compare("photographs of FOLDER", folder / "photos", options.rounds)
        (folder / "large").mkdir()
        large_images(folder / "large")
        compare("1536 x 1024 JPEG", folder / "large", options.rounds)


if __name__ == "__main__":
    main()
