"""How time and memory of the jobs grow with the number of images, and of manifests with their rows.

Run it from the repository root:

    OMP_NUM_THREADS=1 python -m benchmarks.job_scale [--images 300 1000] [--rows 100000]

docs/scale.md uses `--images 1000 10000 --rows 100000 1000000`. Makes photographs of 64 x 96 with
an ellipse in two thirds of them, imports and checks them, makes pseudo-masks (GrabCut; in one
process, and as two shards at once with a run of the whole after them), scores maps and localizes
with the student of native.yaml (random weights). Every job is a separate process; times are the CPU
time between the smaller and the larger number of images, so that the start does not count. Memory
is the largest resident size. "Rerun" is a run that finds all masks up to date.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.import_speed import rows
from boxpromptiml.manifests.manifest import Header, read_manifest, write_manifest

HEIGHT, WIDTH = 64, 96


class Cost(NamedTuple):
    """Cost of one process and of those that it waited for."""

    seconds: float  # CPU
    memory: float  # MiB, the largest of one process


@dataclass(frozen=True)
class Place:
    """Where everything of one number of images lies."""

    root: Path

    @property
    def manifest(self) -> str:
        """What import writes."""
        return f"{self.root}/test.jsonl"

    @property
    def student(self) -> str:
        """Weights for localize."""
        return f"{self.root}/student.safetensors"


def as_png(levels: np.ndarray) -> bytes:
    """A grey image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def build(place: Place, count: int) -> None:
    """Images, masks and boxes as `import --dataset folder` reads them, and maps to score."""
    rng = np.random.default_rng(count)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    source, maps = place.root / "source", place.root / "maps" / "made"
    for folder in ("authentic", "tampered", "masks"):
        (source / folder).mkdir(parents=True)
        (maps / folder).mkdir(parents=True)
    coco: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
    for number in range(count):
        image = rng.integers(40, 90, (HEIGHT, WIDTH, 3))
        name = f"splice_{number:06}" if number % 3 else f"au_{number:06}"
        folder = "tampered" if number % 3 else "authentic"
        inside = np.zeros((HEIGHT, WIDTH), bool)
        if number % 3:
            top, left = rng.integers(2, 30), rng.integers(2, 50)
            inside = ((y - top - 16) / 14) ** 2 + ((x - left - 20) / 18) ** 2 < 1
            image[inside] += rng.integers(40, 120, 3)
            (source / "masks" / f"{name}.png").write_bytes(as_png(inside.astype(np.uint8) * 255))
            file_name = f"tampered/{name}.jpg"
            coco["images"].append(
                {"id": number, "file_name": file_name, "width": WIDTH, "height": HEIGHT}
            )
            box = [int(left), int(top), 40, 32]
            coco["annotations"].append({"id": number, "image_id": number, "bbox": box})
        Image.fromarray(image.astype(np.uint8)).save(source / folder / f"{name}.jpg", quality=95)
        noise = rng.integers(0, 120, (HEIGHT, WIDTH)) + inside * 100
        (maps / folder / f"{name}.png").write_bytes(as_png(noise.astype(np.uint8)))
    (source / "boxes.json").write_text(json.dumps(coco))


def make_student(path: Path) -> None:
    """The student of native.yaml; in a process of its own, for children begin with our memory."""
    from benchmarks.training import NATIVE  # noqa: PLC0415
    from boxpromptiml.inference.formats import write_safetensors  # noqa: PLC0415
    from boxpromptiml.inference.spec import ModelSpec  # noqa: PLC0415
    from boxpromptiml.models.inputs import NetworkInput  # noqa: PLC0415
    from boxpromptiml.models.student import Student  # noqa: PLC0415

    spec = ModelSpec(NATIVE, NetworkInput("native", (224, 352)), 0.5)
    write_safetensors(path, Student(NATIVE).eval(), spec.to_dict())


def cost(*commands: list[str]) -> Cost:
    """Run commands at once; the sum of their times and the largest of their memories."""
    running = [subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
               for c in commands]  # fmt: skip
    total, largest = 0.0, 0.0
    for process in running:
        said = process.stderr.read().decode()  # type: ignore[union-attr]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{process.args!r} failed: {said[-2000:]}")
        total += usage.ru_utime + usage.ru_stime
        largest = max(largest, usage.ru_maxrss / 1024)
    return Cost(total, largest)


def measure(place: Place, count: int) -> dict[str, Cost]:
    """Cost of every job on `count` images."""
    build(place, count)
    cost([sys.executable, "-m", "benchmarks.job_scale", "--make", place.student])
    prep, main = [sys.executable, "-m", "data_prep"], [sys.executable, "-m", "boxpromptiml"]
    root = place.root
    given = f"--manifest={place.manifest}"
    pseudo = [*prep, "pseudo-masks", given]
    found = {
        "import": cost(
            [*prep, "import", "--dataset=folder", f"--source={root}/source", "--name=made",
             "--split=test", f"--out={place.manifest}"],
        ),
        "check": cost([*prep, "check", f"--manifest=[{place.manifest}]", f"--out={root}/check"]),
        "check --verify": cost(
            [*prep, "check", f"--manifest=[{place.manifest}]", "--verify", f"--out={root}/check"]
        ),
        "pseudo-masks": cost([*pseudo, f"--out={root}/one"]),
        "pseudo-masks, rerun": cost([*pseudo, f"--out={root}/one"]),
        "2 shards at once": cost(
            *([*pseudo, f"--out={root}/two", f"--shard={i}", "--num_shards=2"] for i in (0, 1))
        ),
        "the whole run after them": cost([*pseudo, f"--out={root}/two"]),
        "evaluate": cost(
            [*main, "evaluate", f"--predictions={root}/maps", f"--manifest=[{place.manifest}]",
             f"--out={root}/evaluation"],
        ),
        "localize": cost(
            [*main, "localize", f"--checkpoint={place.student}", "--images",
             f"{root}/source/tampered", f"{root}/source/authentic", f"--out={root}/localized"],
        ),
    }  # fmt: skip
    for name in ("manifest.jsonl", "errors.jsonl"):
        if (root / "one" / name).read_bytes() != (root / "two" / name).read_bytes():
            sys.exit(f"{name}: two shards gave another file than one process")
    return found


def manifests(folder: Path, counts: list[int]) -> None:
    """Print what reading a manifest costs."""
    print("\n| rows of a manifest | file, MB | CPU s | MiB | bytes a row |\n|---|---|---|---|---|")
    own = [sys.executable, "-m", "benchmarks.job_scale", "--read"]
    write_manifest(folder / "empty.jsonl", Header(), rows(1))
    base = cost([*own, f"{folder}/empty.jsonl"])
    for count in counts:
        path = folder / f"{count}.jsonl"
        write_manifest(path, Header(), rows(count))
        seconds, memory = cost([*own, str(path)])
        each = (memory - base.memory) * 2**20 / count
        size = path.stat().st_size / 1e6
        print(
            f"| {count:,} | {size:.0f} | {seconds - base.seconds:.1f} | {memory:.0f} | {each:.0f} |"
        )


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs=2, default=[300, 1000])
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000])
    parser.add_argument("--folder", type=Path, help="where to work (a temporary folder)")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_student(options.make)
        return
    if options.read:
        read_manifest(options.read)
        return
    few, many = sorted(options.images)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        costs = []
        for count in (few, many):
            costs.append(measure(Place(folder / str(count)), count))
            shutil.rmtree(folder / str(count))
        print(
            f"| job | ms an image, {few:,} to {many:,} | MiB at {few:,} | MiB at {many:,} | more |"
        )
        print("|---|---|---|---|---|")
        for name, less in costs[0].items():
            more = costs[1][name]
            each = (more.seconds - less.seconds) / (many - few) * 1e3
            grown = (more.memory - less.memory) * 1024 / (many - few)
            print(f"| {name} | {each:.2f} | {less.memory:.0f} | {more.memory:.0f} "
                  f"| {grown:.1f} kB an image |")  # fmt: skip
        if options.rows:
            manifests(folder, options.rows)


if __name__ == "__main__":
    main()
