"""How well, how fast and in how much memory a localizer reads photographs of 1 to 48 megapixels.

Photographs: Debian's `mate-backgrounds` (`apt-get install mate-backgrounds`), 2 to 5 megapixels:

    python -m benchmarks.large_photographs make --photos /usr/share/backgrounds/mate/nature --out D
    python -m benchmarks.large_photographs measure --data D --out D/found [--checkpoint C]

`make` pastes a region of another photograph, 64 to 1024 pixels across (the root of its area), into
hosts of every size, 4:3, no larger than two fifths of their height, and saves forgery and untouched
host at JPEG quality 90. A host smaller than its photograph is
shrunk by areas and cropped. A larger one is made in two ways, in turn: several photographs side by
side, whose seams are no forgery but may look like one, or one photograph scaled up, which has lost
the traces of its camera. Which, and by how much, is in provenance.jsonl. The same options give the
same bytes with the same versions of OpenCV and Pillow.

`measure` runs every mode on every size in a process of its own, and prints F1 at the checkpoint's
threshold, in all and by the region's width, AUC and pixel FPR (our evaluator), seconds of wall
clock and of CPU an image, decoding included, and peak memory. Run it on an idle machine. Modes:

    native      the whole image at its stored size
    N           shrunk to N pixels on the longer side
    tiles       overlapping tiles of the network's input size at the stored size
    mean:N      tiles and N, mean of the logits
    max:N       tiles and N, the higher probability
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml import Localizer
from boxpromptiml.errors import UserError
from boxpromptiml.evaluation.evaluate import EvaluateSettings, evaluate_predictions
from boxpromptiml.geometry import shrink
from boxpromptiml.inference.maps import probability_maps
from boxpromptiml.io import images
from boxpromptiml.io.files import generator, write_bytes, write_jsonl
from boxpromptiml.io.folders import files_below
from boxpromptiml.io.map_files import encode_map
from boxpromptiml.manifests.manifest import Header, read_manifest, write_manifest
from boxpromptiml.metrics.results import ImageRow, write_evaluation
from boxpromptiml.models.inputs import sigmoid, whole_image
from boxpromptiml.records import ImageArray, ProbArray, Sample
from boxpromptiml.synth.forge import Forgery, ForgeryStyle, splice
from boxpromptiml.synth.regions import object_region

_QUALITY = 90  # of every saved image
_DONOR_SIDES = 3  # side of the part of the donor in which a region is found, in regions
_HOST_SIDES = 4  # side of the part of the host that a region is pasted into, in regions
_REGION_AREA = (0.06, 0.2)  # of the part of the donor
_MAX_ACROSS = 0.4  # width of a region, in heights of the host
_UPSCALED = "scaled up"
_JOINED = "side by side"
_SHRUNK = "shrunk"


@dataclass(frozen=True)
class Host:
    """A photograph of the wanted size and how it was made: see the head of this module."""

    image: ImageArray
    way: str
    scale: float  # of the photograph's sides; 1 where several stand side by side
    photos: tuple[str, ...]


def size_of(megapixels: float) -> tuple[int, int]:
    """(H, W), 4:3."""
    width = round(math.sqrt(megapixels * 1e6 * 4 / 3))
    return round(width * 3 / 4), width


def make_host(
    photos: Sequence[Path], size: tuple[int, int], way: str, rng: np.random.Generator
) -> Host:
    """A host of `size` (H, W) from photographs in random order.

    Args:
        photos: The choice, at least one; some come several times if they do not fill the host.
        size: (H, W).
        way: How it is made where one photograph is too small.
        rng: Decides order and crops.
    """
    order = [photos[i] for i in rng.permutation(len(photos))]
    first, _ = images.read_image(order[0])
    scale = max(wanted / side for wanted, side in zip(size, first.shape[:2], strict=True))
    if scale > 1 and way == _JOINED:
        host = np.zeros((*size, 3), np.uint8)
        used = _join(host, order)
        return Host(host, way, 1.0, used)
    method = cv2.INTER_AREA if scale <= 1 else cv2.INTER_CUBIC
    sides = [math.ceil(side * scale) for side in first.shape[:2]]
    whole = np.asarray(cv2.resize(first, (sides[1], sides[0]), interpolation=method))
    top, left = (int(rng.integers(s - w + 1)) for s, w in zip(sides, size, strict=True))
    crop = np.ascontiguousarray(whole[top : top + size[0], left : left + size[1]], np.uint8)
    return Host(crop, _UPSCALED if scale > 1 else _SHRUNK, scale, (order[0].name,))


def _join(host: ImageArray, order: Sequence[Path]) -> tuple[str, ...]:
    """Fill a host (H, W, 3) with rows of photographs at their own size; returns their names."""
    used: list[str] = []
    top = 0
    while top < host.shape[0]:
        left, height = 0, host.shape[0] - top
        while left < host.shape[1]:
            path = order[len(used) % len(order)]
            photo = images.read_image(path)[0][:height, : host.shape[1] - left]
            host[top : top + photo.shape[0], left : left + photo.shape[1]] = photo
            height = photo.shape[0] if left == 0 else min(height, photo.shape[0])
            left += photo.shape[1]
            used.append(path.name)
        top += height  # the next row begins where the lowest photograph of this one ends
    return tuple(used)


def _part(image: ImageArray, side: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """A random square of at most `side` pixels."""
    top, left = (int(rng.integers(max(s - side, 0) + 1)) for s in image.shape[:2])
    return slice(top, top + side), slice(left, left + side)


def paste(
    host: ImageArray, donor: ImageArray, across: int, rng: np.random.Generator
) -> tuple[ImageArray, npt.NDArray[np.bool_], dict[str, Any]]:
    """Paste a region of `across`² pixels; returns image, mask, and how it was done.

    The region is found in a part of the donor, and pasted into a part of the host, of a few times
    its size, so that it is scaled little in hosts of any size.
    """
    source = donor[_part(donor, _DONOR_SIDES * across, rng)]
    region = object_region(source, rng, _REGION_AREA)
    rows, columns = _part(host, _HOST_SIDES * across, rng)
    window = host[rows, columns]
    relative = math.sqrt(window[..., 0].size / region.size)
    scale = across / math.sqrt(np.count_nonzero(region)) / relative
    style = ForgeryStyle(splice_scale=(scale, scale))
    forged: Forgery = splice(window, source, region, rng, style)
    image, mask = host.copy(), np.zeros(host.shape[:2], bool)
    image[rows, columns], mask[rows, columns] = forged.image, forged.mask
    place = {"top": rows.start, "left": columns.start}
    return image, mask, place | forged.parameters


def make(options: argparse.Namespace) -> None:
    """Write images, masks, manifest.jsonl and provenance.jsonl."""
    photos = [p for p in files_below(options.photos) if p.suffix.lower() in (".jpg", ".jpeg")]
    if len(photos) < 2:
        sys.exit(f"{options.photos}: {len(photos)} JPEG photographs; two are needed at least")
    samples: list[Sample] = []
    provenance: list[dict[str, Any]] = []
    for megapixels in options.megapixels:
        for number in range(options.count):
            for across in options.regions:
                if across > _MAX_ACROSS * size_of(megapixels)[0]:
                    continue
                name = f"{megapixels:g}MP_{across}px_{number}"
                rng = generator(options.seed, name)
                way = (_JOINED, _UPSCALED)[(number + options.regions.index(across)) % 2]
                host = make_host(photos, size_of(megapixels), way, rng)
                others = [photo for photo in photos if photo.name not in host.photos]
                donor = (others or photos)[int(rng.integers(len(others or photos)))]
                image, mask, how = paste(host.image, images.read_image(donor)[0], across, rng)
                images.write_jpeg(options.out / f"{name}.jpg", image, _QUALITY)
                images.write_jpeg(options.out / f"{name}_authentic.jpg", host.image, _QUALITY)
                images.write_png(options.out / f"{name}_mask.png", mask.astype(np.uint8) * 255)
                known = Sample(
                    id=name, dataset=f"{megapixels:g} MP", split="test", group=name,
                    image=f"{name}.jpg", size=(mask.shape[0], mask.shape[1]), label=1, boxes=None,
                    kind="splice", mask=f"{name}_mask.png",
                )  # fmt: skip
                authentic = replace(known, id=f"{name}_authentic", image=f"{name}_authentic.jpg",
                                    label=0, boxes=(), kind=None, mask=None)  # fmt: skip
                samples += [known, authentic]
                provenance.append({
                    "id": name, "host": host.photos, "way": host.way, "host_scale": host.scale,
                    "donor": donor.name, "across": across,
                    "region_pixels": int(np.count_nonzero(mask)),
                } | how)  # fmt: skip
                print(f"{name}: {host.way}, {len(host.photos)} photographs", file=sys.stderr)
    write_jsonl(options.out / "provenance.jsonl", provenance)
    write_manifest(options.out / "manifest.jsonl", Header(image_root="."), samples)


def found_by(localizer: Localizer, image: ImageArray, mode: str) -> ProbArray:
    """The map (H, W) of an image in one of the modes of this module's head."""
    if mode == "tiles":
        return localizer(image, tile=True)
    how, _, side = mode.rpartition(":")
    small = image if mode == "native" else shrink(image, int(side))
    as_stored = whole_image(small, replace(localizer.spec.input, mode="native"))
    (whole,), _ = probability_maps(localizer.network, [as_stored], [image.shape[:2]])
    if not how:
        return whole
    tiles = localizer(image, tile=True)
    if how == "max":
        return np.maximum(whole, tiles)
    return sigmoid(_half_logit(whole) + _half_logit(tiles))


def _half_logit(prob: ProbArray) -> ProbArray:
    bounded = prob.clip(1e-6, 1 - 1e-6)
    return np.asarray((np.log(bounded) - np.log1p(-bounded)) / 2, np.float32)


def run_one(options: argparse.Namespace) -> None:
    """Localize the images of one size in one mode, and print seconds and memory as JSON."""
    manifest = read_manifest(options.data / "manifest.jsonl")
    chosen = [sample for sample in manifest.samples if sample.dataset == options.size]
    localizer = Localizer.load(options.checkpoint, threads=options.threads)
    wall = cpu = memory = 0.0
    for sample in chosen:
        start = time.perf_counter(), time.process_time()
        found = found_by(localizer, images.read_image(manifest.image_path(sample))[0], options.mode)
        wall, cpu = wall + time.perf_counter() - start[0], cpu + time.process_time() - start[1]
        # The first image's: writing maps takes memory too.
        memory = memory or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        write_bytes(options.out / options.mode / f"{sample.id}.png", encode_map(found))
    row = {"wall": wall / len(chosen), "cpu": cpu / len(chosen), "memory": memory}
    print(json.dumps(row | {"threshold": localizer.spec.threshold}))


def measure(options: argparse.Namespace) -> None:
    """Print one table row per size and mode."""
    path = options.data / "manifest.jsonl"
    samples = read_manifest(path).samples
    sizes = list(dict.fromkeys(sample.dataset for sample in samples))
    widths = sorted({_across(sample.id) for sample in samples})
    by_width = " / ".join(map(str, widths))
    head = ("size", "mode", "F1", f"F1 of regions {by_width} px", "best F1", "AUC", "pixel FPR")
    print(f"| {' | '.join([*head, 's', 'CPU s', 'MiB'])} |\n{'|---' * (len(head) + 3)}|")
    for mode in options.modes:
        costs = {size: _in_child(options, mode, size) for size in sizes}
        if None in costs.values():  # an evaluation needs every map
            print(f"| {', '.join(s for s, c in costs.items() if not c)} | {mode} | failed |")
            continue
        settings = EvaluateSettings(threshold=costs[sizes[0]]["threshold"])
        result = evaluate_predictions(options.out / mode, [path], settings)
        write_evaluation(options.out / "scores" / mode, result)
        for size, cost in costs.items():
            scores = result.metrics["groups"]["dataset"][size]
            names = ("pixel_f1", "best_f1", "auc", "false_alarm_pixels")
            cells = [f"{scores[name]['value']:.3f}" for name in names]
            cells.insert(1, " / ".join(_f1(result.rows, size, across) for across in widths))
            cells += [f"{cost['wall']:.2f}", f"{cost['cpu']:.2f}", f"{cost['memory']:.0f}"]
            print(f"| {size} | {mode} | {' | '.join(cells)} |", flush=True)


def _across(sample_id: str) -> int:
    return int(sample_id.split("_")[1].removesuffix("px"))


def _f1(rows: Sequence[ImageRow], size: str, across: int) -> str:
    """Mean F1 of the forgeries of one size of image and one width of region."""
    found = [r.f1 for r in rows if r.dataset == size and r.label == 1 and _across(r.id) == across]
    return f"{np.mean(found):.3f}" if found else "-"


def _in_child(options: argparse.Namespace, mode: str, size: str) -> Any:
    """What `run_one` prints; None if the process failed, for instance for want of memory."""
    command = [sys.executable, "-m", "benchmarks.large_photographs", "one",
               f"--data={options.data}", f"--out={options.out}", f"--mode={mode}",
               f"--size={size}", f"--threads={options.threads}"]  # fmt: skip
    command += [f"--checkpoint={options.checkpoint}"] if options.checkpoint else []
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        print(f"{mode}, {size}: {done.stderr[-500:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


def main() -> None:
    """Make the photographs, or measure on them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    making = verbs.add_parser("make")
    making.set_defaults(verb=make)
    making.add_argument("--photos", type=Path, required=True)
    making.add_argument("--out", type=Path, required=True)
    making.add_argument("--megapixels", type=float, nargs="+", default=[1, 3, 12, 24, 48])
    making.add_argument("--regions", type=int, nargs="+", default=[64, 256, 1024])
    making.add_argument("--count", type=int, default=4, help="forgeries a size and region")
    making.add_argument("--seed", type=int, default=0)
    measuring, one = verbs.add_parser("measure"), verbs.add_parser("one")
    for verb, function in ((measuring, measure), (one, run_one)):
        verb.set_defaults(verb=function)
        verb.add_argument("--data", type=Path, required=True)
        verb.add_argument("--out", type=Path, required=True)
        verb.add_argument("--checkpoint", type=Path, help="default: the student of the package")
        verb.add_argument("--threads", type=int, default=2)
    modes = ["native", "512", "1024", "2048", "tiles", "mean:1024", "max:1024"]
    measuring.add_argument("--modes", nargs="+", default=modes)
    one.add_argument("--mode", required=True)
    one.add_argument("--size", required=True)
    options = parser.parse_args()
    try:
        options.verb(options)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
