"""Maps of methods that need no training, as files that `boxpromptiml evaluate` scores.

PYTHONPATH=. python benchmarks/others/maps.py --method ela --images M.jsonl --out runs/others

Runs in an environment of its own, see README.md beside this file. Writes a grey PNG of 16 bits, 0
to 1, at the stored size, for every image: OUT/METHOD/IMAGE.png, where IMAGE is its path in the
manifest, or begins with the name of the folder. Images that cannot be used are listed in
OUT/METHOD/errors.jsonl; the exit status is then 3. Maps that exist are kept.
"""

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from boxpromptiml.inference.copy_move import copied_regions

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
ImageArray = npt.NDArray[np.uint8]  # (H, W, 3) RGB

_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
_WINDOW = 17  # pixels, the square that JPEG ghosts are averaged over (Farid 2009)
_CELL = 8  # pixels, of a JPEG block


def _package(module: str) -> Any:
    """A module of pyIFD, which only its own methods need."""
    return importlib.import_module(f"pyIFD.{module}")


def unusual(values: Array, size: tuple[int, int]) -> Floats:
    """How far each pixel differs from most of the image, either way, in [0, 1).

    A forged region may have more or less noise or error than its host, so d is the distance of the
    logarithm of the averaged values from its median over the image, and the map d / (1 + d): one
    scale for all images, without a parameter.

    Args:
        values: (h, w) of a detector, of any scale.
        size: (H, W) of the image.
    """
    whole = cv2.resize(values.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    mean = cv2.blur(whole, (_WINDOW, _WINDOW))
    level = np.copysign(np.log1p(np.abs(mean)), mean)
    distance = np.abs(level - np.median(level))
    return np.asarray(distance / (1 + distance), np.float32)


def error_levels(path: str, image: ImageArray) -> Floats:
    """Error level analysis (Krawetz 2007): differences to the image saved again at quality 90."""
    return unusual(_package("ELA").ELA(path), image.shape[:2])


def noise(path: str, image: ImageArray) -> Floats:
    """Noise level: what a median filter of 3 x 3 takes away (pyIFD's NOI4)."""
    return unusual(_package("NOI4").MedFiltForensics(path), image.shape[:2])


def blocking(path: str, image: ImageArray) -> Floats:
    """Irregular JPEG block grid (Li, Yuan, Yu 2009)."""
    height, width = image.shape[:2]
    blocks = _package("BLK").GetBlockGrid(path)[0]
    cells = np.kron(blocks, np.ones((_CELL, _CELL)))
    return unusual(cells[:height, :width], (height, width))


def ghost(path: str, image: ImageArray) -> Floats:
    """JPEG ghosts (Farid 2009): regions that were once saved at another quality.

    pyIFD gives 50 difference maps, one a quality, each stretched to [0, 1]. A local minimum of the
    image's mean difference marks a quality at which most of it was saved, the global one the last.
    The map is the mean distance from the median of all local minima but the last.
    """
    module = _package("GHOST")
    # Equal to rounding (4e-15), and 2.7 times as fast as its convolution by FFT.
    module.fftconvolve = lambda x, _kernel, _mode: cv2.blur(
        x, (_WINDOW, _WINDOW), borderType=cv2.BORDER_CONSTANT
    )
    _, difference, maps, minima, *_ = module.GHOST(path)
    last = int(np.argmin(difference))
    earlier = [int(i) - 1 for i in minima if i - 1 != last] or [last]  # pyIFD counts from 1
    distance = np.mean([np.abs(maps[i] - np.median(maps[i])) for i in earlier], axis=0)
    border = _WINDOW // 2  # that pyIFD leaves out
    inner = (image.shape[1] - 2 * border, image.shape[0] - 2 * border)
    whole = cv2.resize(distance.astype(np.float32), inner, interpolation=cv2.INTER_LINEAR)
    return np.pad(whole, border, mode="edge").clip(0, 1)


def copy_move(_path: str, image: ImageArray) -> Floats:
    """Copies within the image, and their sources; an image without any has the map 0."""
    found = copied_regions(image)
    return cv2.resize(found, image.shape[1::-1], interpolation=cv2.INTER_LINEAR).clip(0, 1)


METHODS: dict[str, Callable[[str, ImageArray], Floats]] = {
    "ela": error_levels,
    "noise": noise,
    "ghost": ghost,
    "blocking": blocking,
    "copymove": copy_move,
}


def images_of(given: list[Path]) -> dict[str, Path]:
    """The images of manifests and folders by the names of their maps: FOLDER/.../IMAGE."""
    named: dict[str, Path] = {}
    for one in given:
        if one.suffix == ".jsonl":
            header, *rows = map(json.loads, one.read_text().splitlines())
            root = one.parent / header["image_root"]
            found = {row["image"]: (root / row["image"]).resolve() for row in rows}
        else:
            above = one.resolve().parent
            files = (path for path in sorted(one.resolve().rglob("*")) if path.is_file())
            found = {path.relative_to(above).as_posix(): path for path in files}
        for name, path in found.items():
            if path.suffix.lower() in _SUFFIXES and named.setdefault(name, path) != path:
                sys.exit(f"{path}: has the name {name} of {named[name]}; give it another --out")
    if not named:
        sys.exit(f"no images in {', '.join(map(str, given))}")
    return named


def detect(method: str, path: Path) -> Floats:
    """The map (H, W) of one image, in [0, 1].

    The detectors read a lossless copy in a temporary folder, where they also write files of their
    own, so that all of them see the same pixels, unrotated, in three channels.
    """
    with Image.open(path) as picture:
        image = np.asarray(picture.convert("RGB"))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Image.fromarray(image).save("image.bmp")
        found = METHODS[method]("image.bmp", image)
    if found.shape != image.shape[:2] or not (found.min() >= 0 and found.max() <= 1):
        raise ValueError(f"gave a map {found.shape} from {found.min()} to {found.max()}")
    return found


def write_map(path: Path, prob: Floats) -> None:
    """Write a map in [0, 1] as PNG of 16 bits, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", np.round(prob * 65535).astype(np.uint16))[1]
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(encoded.tobytes())
    temporary.replace(path)


def run(method: str, images: list[Path], out: Path) -> int:
    """Write the map of every image that has none yet; returns the exit status."""
    named = images_of(images)
    errors: list[dict[str, str]] = []
    for number, (name, path) in enumerate(named.items(), start=1):
        target = out / method / f"{name}.png"
        try:
            if not target.exists():
                write_map(target, detect(method, path))
        except Exception as error:  # noqa: BLE001 - detectors raise anything; the rest goes on
            message = f"{error} ({type(error).__name__})"
            errors.append({"path": str(path), "message": message})
            print(f"{path}: {message}", file=sys.stderr)
        if number % 50 == 0:
            print(f"{method}: {number} of {len(named)}", file=sys.stderr)
    (out / method).mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(error) + "\n" for error in errors)
    (out / method / "errors.jsonl").write_text(lines)
    print(f"{method}: {len(named) - len(errors)} maps in {out / method}, {len(errors)} rejected")
    return 3 if errors else 0


def _saved(image: ImageArray, quality: int) -> ImageArray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def example(method: str) -> tuple[ImageArray, Array]:
    """An image (192, 256, 3) with traces that the method looks for, and their place (192, 256)."""
    rng = np.random.default_rng(0)
    scene = np.zeros((192, 256, 3), np.float32)
    for sigma, strength in ((24, 900), (6, 200), (2, 50)):
        layer = rng.normal(0, strength, scene.shape).astype(np.float32)
        scene += cv2.GaussianBlur(layer, (0, 0), sigma)
    image = (128 + scene + rng.normal(0, 2, scene.shape)).clip(0, 255).astype(np.uint8)
    truth = np.zeros(image.shape[:2], bool)
    truth[64:128, 32:112] = True
    if method == "copymove":
        image[64:128, 32:112] = image[100:164, 160:240]
        truth[100:164, 160:240] = True
    elif method == "noise":
        noisy = image + rng.normal(0, 8, image.shape)
        image[truth] = noisy.clip(0, 255).astype(np.uint8)[truth]
    elif method == "blocking":
        shifted = np.roll(_saved(np.roll(image, 4, (0, 1)), 50), -4, (0, 1))
        image = np.where(truth[..., None], shifted, _saved(image, 50))
    elif method == "ela":
        image = np.where(truth[..., None], image, _saved(image, 90))
    else:
        image = _saved(np.where(truth[..., None], image, _saved(image, 60)), 90)
    return image, truth


def area_under_roc(found: Floats, truth: Array) -> float:
    """Probability that a pixel of the region has more than another one; ties count one half."""
    inside, outside = np.sort(found[truth]), np.sort(found[~truth])
    below = [np.searchsorted(outside, inside, side=side).mean() for side in ("left", "right")]
    return float(np.mean(below) / len(outside))


def self_test() -> int:
    """Whether every method sees what it looks for; returns the exit status."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            image, truth = example(method)
            path = Path(folder) / f"{method}.png"
            Image.fromarray(image).save(path)
            area = area_under_roc(detect(method, path), truth)
            missed += area < 0.75
            print(f"{method:10} AUC {area:.3f} {'ok' if area >= 0.75 else 'FAILED'}")
    return 1 if missed else 0


def main() -> int:
    """Run one method, or test them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--images", nargs="+", type=Path, help="manifests, or folders")
    parser.add_argument("--out", type=Path, help="maps go to OUT/METHOD")
    parser.add_argument("--self_test", action="store_true", help="every method on an example")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.self_test:
        return self_test()
    if not (options.method and options.images and options.out):
        parser.error("give --method, --images and --out, or --self_test")
    return run(options.method, options.images, options.out)


if __name__ == "__main__":
    sys.exit(main())
