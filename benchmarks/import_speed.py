"""How long an import takes, and how much memory.

Run it from the repository root:

    python -m benchmarks.import_speed [--folder DIR] [--width 384 --height 256] [--zip]

Builds a tree like CASIA v2's (2,064 JPEG and 3,059 TIFF forgeries with masks, 7,437 JPEG and 54 BMP
authentic images: 12,614 images, about 1.2 GB at 384 x 256) in a temporary folder, imports it by the
command line, without and with --verify, with --zip from an archive as well; then writes, reads and
splits a manifest of 100,000 rows. Every line is a separate process, start included. Times are
wall clock with warm file caches; memory is the largest resident size.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from boxpromptiml.manifests.manifest import Header, read_manifest, write_manifest
from boxpromptiml.records import Box, Sample

KINDS = ("ani", "arc", "art", "cha", "ind", "nat", "pla", "sec", "txt")
VARIANTS = 8  # different contents of a format; more cost time to make and change nothing


def contents(kind: str, width: int, height: int) -> list[bytes]:
    """Files of a format, with the noise of a photograph."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(VARIANTS):
        smooth = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
        picture = Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC)
        noisy = np.asarray(picture, np.int16) + rng.integers(-8, 9, (height, width, 3))
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, kind)
        files.append(buffer.getvalue())
    return files


def masks(width: int, height: int) -> list[bytes]:
    """PNG masks with one ellipse."""
    rows, columns = np.mgrid[:height, :width]
    files = []
    for number in range(VARIANTS):
        inside = (rows - height / 2) ** 2 + (columns - 8 * number) ** 2 < (height / 4) ** 2
        buffer = io.BytesIO()
        Image.fromarray(inside.astype(np.uint8) * 255).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def build_tree(root: Path, width: int, height: int) -> None:
    """Write a tree with the counts, names and formats of CASIA v2."""
    jpeg, tiff, bmp = (contents(kind, width, height) for kind in ("JPEG", "TIFF", "BMP"))
    truth = masks(width, height)
    for folder in ("Au", "Tp", "CASIA 2 Groundtruth"):
        (root / folder).mkdir(parents=True)
    for number in range(7491):
        suffix, data = ("jpg", jpeg) if number < 7437 else ("bmp", bmp)
        name = f"Au_{KINDS[number % 9]}_{number:05}.{suffix}"
        (root / "Au" / name).write_bytes(data[number % VARIANTS])
    for number in range(5123):
        suffix, data = ("jpg", jpeg) if number < 2064 else ("tif", tiff)
        sort = "D" if number < 1828 else "S"
        first = f"{KINDS[number % 9]}{number:05}"
        second = f"{KINDS[number * 7 % 9]}{number * 7 % 7491:05}" if sort == "D" else first
        stem = f"Tp_{sort}_NRN_S_N_{first}_{second}_{number:05}"
        (root / "Tp" / f"{stem}.{suffix}").write_bytes(data[number % VARIANTS])
        (root / "CASIA 2 Groundtruth" / f"{stem}_gt.png").write_bytes(truth[number % VARIANTS])


def pack(root: Path, archive: Path) -> None:
    """Pack the tree into one zip archive."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as stream:
        for path in root.rglob("*"):
            stream.write(path, path.relative_to(root))


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and MiB of a separate process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(command)} failed: {process.stderr.read().decode()}")  # type: ignore[union-attr]
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes there, KiB here
    return seconds, usage.ru_maxrss * unit / 2**20


def rows(count: int) -> list[Sample]:
    """Samples with masks, boxes and hashes, three per group."""
    return [
        Sample(
            id=f"casia_v2/Tp_{number}",
            dataset="casia_v2",
            split="train",
            group=f"casia_v2/ani{number // 3}",
            image=f"CASIA2/Tp/Tp_D_NRN_S_N_ani00018_sec00096_{number}.jpg",
            size=(256, 384),
            label=number % 2,
            boxes=(Box(1.5, 2, 30, 40.25),) * (number % 2),
            mask=f"CASIA 2 Groundtruth/Tp_{number}_gt.png" if number % 2 else None,
            mask_threshold=127 if number % 2 else None,
            image_sha256=f"{number:064x}",
        )
        for number in range(count)
    ]


def job(name: str, path: Path, options: argparse.Namespace) -> None:
    """Entry point of the separate process that `main` starts."""
    if name == "tree":
        build_tree(path, options.width, options.height)
    elif name == "zip":
        pack(path, path.with_suffix(".zip"))
    elif name == "write":
        write_manifest(path, Header(), rows(options.rows))
    else:
        read_manifest(path)


def main() -> None:
    """Build the tree, import it, print the costs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where to build the tree (a temporary folder)")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--zip", action="store_true", help="pack the tree, import the archive too")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job(options.job[0], Path(options.job[1]), options)
        return
    sizes = [f"--{key}={getattr(options, key)}" for key in ("width", "height", "rows")]
    own = [sys.executable, "-m", "benchmarks.import_speed", *sizes, "--job"]
    command = [sys.executable, "-m", "data_prep", "import"]
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        tree, large = f"{temporary}/casia2", f"{temporary}/large.jsonl"
        casia = [*command, "--dataset=casia_v2", f"--out={temporary}/out.jsonl"]
        zipped = (
            ("pack the zip", [*own, "zip", tree]),
            ("import the zip", [*casia, f"--source={tree}.zip"]),
        )
        for name, words in (
            ("build the tree", [*own, "tree", tree]),
            ("start and --help", [*command, "--help"]),
            ("import the folder", [*casia, f"--source={tree}"]),
            ("again", [*casia, f"--source={tree}"]),
            ("--verify", [*casia, f"--source={tree}", "--verify=true"]),
            *(zipped if options.zip else ()),
            (f"write {options.rows} rows", [*own, "write", large]),
            ("read and check them", [*own, "read", large]),
        ):
            seconds, memory = measure(words)
            print(f"{name:<28} {seconds:7.1f} s {memory:7.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
