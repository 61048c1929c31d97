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

`measure` prints F1 at the checkpoint's threshold, by the region's width and in all, AUC, pixel FPR
on the untouched hosts, F1 at the threshold (of a size and mode) where that is at most 1 %, CPU
seconds an image without decoding, and the difference of the F1 from that of the first mode, with an
interval over the hosts' first photographs. Stopped and started again it goes on. Modes:

    native           the stored size; more than 4 megapixels in tiles
    N                shrunk to N pixels on the longer side
    mean:A+B         mean of the logits of two modes; the costs are those of the sum
    max:A+B          the higher probability of two modes
"""

import argparse
import json
import math
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
from boxpromptiml.geometry import shrink
from boxpromptiml.inference.localizer import Localized
from boxpromptiml.io import images
from boxpromptiml.io.files import generator, json_line, write_jsonl
from boxpromptiml.io.folders import files_below
from boxpromptiml.manifests.manifest import Header, read_manifest, write_manifest
from boxpromptiml.metrics.bootstrap import difference_interval
from boxpromptiml.metrics.histograms import auc, count_values, cuts, f1, flagged
from boxpromptiml.models.inputs import sigmoid, to_stored_size
from boxpromptiml.records import ImageArray, MaskArray, ProbArray, Sample
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
_MEGAPIXELS = [1, 3, 12, 24, 48]
_THRESHOLDS = np.round(np.arange(0.02, 1, 0.02), 2)


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


def found_by(
    localizer: Localizer, image: ImageArray, mode: str, known: dict[str, Localized]
) -> Localized:
    """Map (H, W) and image score of an image in one of the modes of this module's head.

    Args:
        localizer: For `native` inputs.
        image: (H, W, 3).
        mode: The mode.
        known: Those of this image by mode, to which it is added.
    """
    if mode in known:
        return known[mode]
    how, _, several = mode.rpartition(":")
    if how:
        found = [found_by(localizer, image, one, known) for one in several.split("+")]
        maps, scores = [one.prob for one in found], [one.score for one in found]
        if how == "max":
            return Localized(np.maximum.reduce(maps), max(scores))
        logits = np.sum([_logit(one) for one in maps], axis=0) / np.float32(len(maps))
        odds = _logit(np.array(scores, np.float32)).mean(keepdims=True)
        return Localized(sigmoid(logits), float(sigmoid(odds)[0]))
    small = image if mode == "native" else shrink(image, int(mode))
    found_small = localizer.localize([small])[0]
    enlarged = to_stored_size(_logit(found_small.prob), image.shape[:2])
    known[mode] = Localized(enlarged, found_small.score)
    return known[mode]


def _logit(prob: ProbArray) -> ProbArray:
    bounded = prob.clip(1e-6, 1 - 1e-6)
    return np.asarray(np.log(bounded) - np.log1p(-bounded), np.float32)


def _scores(prob: ProbArray, truth: MaskArray, threshold: float) -> dict[str, Any]:
    """Scores at the threshold; F1 (of a forgery) or pixel FPR by `_THRESHOLDS`."""
    levels = np.rint(prob * np.float32(65535)).astype(np.uint16)
    counts = count_values(levels, truth)
    tp, fp = flagged(counts)
    at = cuts([threshold, *_THRESHOLDS], np.arange(65536) / 65535)
    if not truth.any():
        fpr = (fp[at] / truth.size).tolist()
        return {"fpr": fpr[0], "by_threshold": fpr[1:]}
    f1s = f1(tp, fp, int(truth.sum()))
    return {
        "f1": float(f1s[at[0]]), "best_f1": float(f1s.max()), "by_threshold": f1s[at[1:]].tolist(),
        "auc": float(auc(counts.manipulated, counts.authentic)),
    }  # fmt: skip


def measure(options: argparse.Namespace) -> None:
    """Score every image in every mode into rows.jsonl, where it is not there yet; print a table."""
    manifest = read_manifest(options.data / "manifest.jsonl")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "rows.jsonl"
    done = _rows(path)
    localizer = Localizer.load(
        options.checkpoint, threads=options.threads, copy_move=False, flips=False
    )
    for sample in manifest.samples:
        missing = [mode for mode in options.modes if (sample.id, mode) not in done]
        if not missing or sample.dataset not in options.sizes:
            continue
        if sample.label == 0 and _number(sample.id) >= options.authentic:
            continue
        start = time.process_time()
        image, _ = images.read_image(manifest.image_path(sample))
        print(f"{sample.id}: decoded in {time.process_time() - start:.2f} s", file=sys.stderr)
        truth = np.zeros(sample.size, bool)
        if (mask := manifest.mask_path(sample)) is not None:
            truth = images.read_image(mask)[0][..., 0] > 0
        known: dict[str, Localized] = {}
        for mode in missing:
            start = time.process_time()
            found = found_by(localizer, image, mode, known)
            row = {"id": sample.id, "mode": mode, "cpu": time.process_time() - start,
                   "score": found.score}  # fmt: skip
            row |= _scores(found.prob, truth, localizer.spec.threshold)
            with path.open("ab") as stream:
                stream.write(json_line(row))
    _print_table(_rows(path), options.modes, _first_photos(options.data))


def _first_photos(data: Path) -> dict[str, str]:
    """The first photograph of every host, by the forgery's name."""
    lines = (data / "provenance.jsonl").read_text().splitlines()
    return {row["id"]: row["host"][0] for row in map(json.loads, lines)}


def _number(name: str) -> int:
    return int(name.split("_")[2])


def _rows(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of earlier runs by image and mode."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["id"], row["mode"]): row for row in rows}


def _print_table(
    rows: dict[tuple[str, str], dict[str, Any]], modes: Sequence[str], photos: dict[str, str]
) -> None:
    rows = {key: row for key, row in rows.items() if key[0].removesuffix("_authentic") in photos}
    keys = sorted({tuple(name.split("_")[:2]) for name, _ in rows}, key=lambda k: _numbers(*k))
    widths = sorted({across for _, across in keys}, key=lambda across: int(across[:-2]))
    head = ["size", "mode", *(f"F1, {w}" for w in widths), "F1", "AUC", "pixel FPR",
            "F1 at FPR 1 %", "CPU s", f"F1 - {modes[0]}"]  # fmt: skip
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for size in dict.fromkeys(size for size, _ in keys):
        for mode in modes:
            chosen = [r for (n, m), r in rows.items() if m == mode and n.startswith(f"{size}_")]
            forged = [row for row in chosen if "f1" in row]
            clean = [row for row in chosen if "fpr" in row]
            if not forged or not clean:
                continue
            of_width = [[r["f1"] for r in forged if f"_{w}_" in r["id"]] for w in widths]
            cells = [f"{np.mean(f1s):.3f}" if f1s else "-" for f1s in of_width]
            cells += [f"{np.mean([row[name] for row in forged]):.3f}" for name in ("f1", "auc")]
            cells.append(f"{np.mean([row['fpr'] for row in clean]):.3f}")
            fprs = np.mean([row["by_threshold"] for row in clean], axis=0)
            f1s = np.mean([row["by_threshold"] for row in forged], axis=0)
            cells.append(f"{f1s[fprs <= 0.01].max(initial=0):.3f}")
            cells.append(f"{np.mean([row['cpu'] for row in chosen]):.1f}")
            known = [row["id"] for row in forged if (row["id"], modes[0]) in rows]
            ours, theirs = ([rows[n, m]["f1"] for n in known] for m in (mode, modes[0]))
            gain = difference_interval(ours, theirs, [photos[n] for n in known])
            cells.append(f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
            print(f"| {size} | {mode} | {' | '.join(cells)} |")


def _numbers(size: str, across: str) -> tuple[float, int]:
    return float(size.removesuffix("MP")), int(across.removesuffix("px"))


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
    making.add_argument("--megapixels", type=float, nargs="+", default=_MEGAPIXELS)
    making.add_argument("--regions", type=int, nargs="+", default=[64, 256, 1024])
    making.add_argument("--count", type=int, default=4, help="forgeries a size and region")
    making.add_argument("--seed", type=int, default=0)
    measuring = verbs.add_parser("measure")
    measuring.set_defaults(verb=measure)
    measuring.add_argument("--data", type=Path, required=True)
    measuring.add_argument("--out", type=Path, required=True)
    measuring.add_argument("--checkpoint", type=Path, help="default: the student of the package")
    measuring.add_argument("--threads", type=int, default=2)
    measuring.add_argument(
        "--authentic", type=int, default=4, help="untouched hosts a size and region"
    )
    sizes = [f"{size:g} MP" for size in _MEGAPIXELS]
    measuring.add_argument("--sizes", nargs="+", default=sizes, help="such as '12 MP'")
    modes = ["native", "512", "1024", "2048", "mean:native+1024", "max:native+1024"]
    measuring.add_argument("--modes", nargs="+", default=modes)
    options = parser.parse_args()
    try:
        options.verb(options)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
