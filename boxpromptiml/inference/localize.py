"""`boxpromptiml localize`: a trained localizer on images nobody has annotated."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, RejectedInput, UserError
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.inference.maps import Precision
from boxpromptiml.inference.predictions import Prediction, write_prediction, write_tables
from boxpromptiml.inference.runtimes import Runtime
from boxpromptiml.io.files import write_jsonl
from boxpromptiml.io.images import ImageInfo, read_image
from boxpromptiml.io.sandbox import DEFAULT_BOUNDS, IsolatedDecoder
from boxpromptiml.records import ImageArray
from boxpromptiml.segmenters.config import SegmenterConfig

Decoder = Callable[[Path], tuple[ImageArray, ImageInfo]]


def localize(
    checkpoint: Path,
    images: list[str],
    out: Path,
    tile: bool = False,
    threshold: float | None = None,
    batch_size: int = 4,
    overlays: bool = True,
    device: str = "cpu",
    segmenter: SegmenterConfig | None = None,
    runtime: Runtime = "auto",
    precision: Precision = "fp32",
    isolate: bool = True,
    decode_seconds: float = DEFAULT_BOUNDS.seconds,
) -> int:
    """Localize manipulated pixels in any images: files, folders (with all below) and globs.

    Writes prob/NAME.png (8-bit probability at the stored size), mask/NAME.png, overlay/NAME.jpg,
    predictions.jsonl and predictions.csv. An image that cannot be read is listed in errors.jsonl,
    the rest goes on, and the exit status is 3.

    Args:
        checkpoint: Of `boxpromptiml fit`, or .safetensors or .onnx of `boxpromptiml export`.
        images: Files, folders or quoted glob patterns.
        out: Folder to write.
        tile: Overlapping tiles at the stored resolution instead of the checkpoint's own input.
        threshold: A pixel is flagged strictly above it; the checkpoint's by default.
        batch_size: Images through the network at a time.
        overlays: Write overlay/.
        device: cpu or cuda.
        segmenter: Refine the maps by these regions instead of the checkpoint's own choice
            (`--segmenter.name=none` for the coarse maps of an image-label checkpoint).
        runtime: What runs the network. `auto`: PyTorch, and ONNX Runtime or OpenVINO for .onnx;
            `compile` spends a minute on every new size, and pays off for many images of one.
        precision: bf16 is faster where the processor knows it, and not exact; for torch,
            compile and openvino.
        isolate: Decode the images in a process of their own, which a file that breaks the decoder
            takes with it instead of the job.
        decode_seconds: Beyond it an isolated image is rejected.
    """
    if not 0 <= (threshold or 0.0) <= 1:
        raise UserError(f"--threshold must be in [0, 1], got {threshold}")
    with _decoder(isolate, decode_seconds) as decode:  # starts while the network is loaded
        localizer = Localizer.load(checkpoint, device, segmenter, runtime, precision)
        sys.stderr.write(f"runtime: {localizer.runtime}\n")
        inputs = name_inputs(find_inputs(images, out))
        if not inputs:
            raise UserError(f"no files found in {', '.join(images)}")
        limit = localizer.spec.threshold if threshold is None else threshold
        predictions: list[Prediction] = []
        errors: list[RejectedInput] = []
        try:
            decoded = _decoded(inputs, decode, errors)
            for known, image, found in localizer.localize_each(decoded, batch_size, tile):
                (name, info), (prob, score) = known, found
                path = inputs[name]
                predictions.append(
                    write_prediction(out, name, path, image, info, prob, score, limit, overlays)
                )
        finally:  # an interrupted run keeps the rows of what is finished
            write_tables(out, predictions)
            write_jsonl(out / "errors.jsonl", [error.as_row() for error in errors])
    sys.stdout.write(f"{out}: {len(predictions)} localized, {len(errors)} rejected\n")
    return EXIT_REJECTED if errors else EXIT_OK


def _decoder(isolate: bool, seconds: float) -> AbstractContextManager[Decoder]:
    return (
        IsolatedDecoder(replace(DEFAULT_BOUNDS, seconds=seconds))
        if isolate
        else nullcontext(read_image)
    )


def _decoded(
    inputs: dict[str, Path], decode: Decoder, errors: list[RejectedInput]
) -> Iterator[tuple[tuple[str, ImageInfo], ImageArray]]:
    """Name, source and pixels of every image that can be decoded; `errors` takes the others."""
    console = Console(stderr=True)
    for name, path in track(inputs.items(), "localizing", console=console):
        try:
            image, info = decode(path)
        except RejectedInput as error:
            console.print(f"rejected {error}", markup=False, soft_wrap=True)
            errors.append(error)
        else:
            yield (name, info), image


def find_inputs(patterns: Sequence[str], out: Path) -> list[tuple[Path, Path]]:
    """Files behind paths, folders and globs, as (file, folder that its name is relative to).

    A path that leads nowhere stays in the list, so that it is reported and not lost. What lies
    below `out` is what we wrote ourselves, and left out.
    """
    found: list[tuple[Path, Path]] = []
    for pattern in patterns:
        path = Path(pattern)
        if _is_folder(path):
            found += [(file, path) for file in sorted(path.rglob("*")) if not _is_folder(file)]
        elif any(c in pattern for c in "*?[") and not os.path.lexists(path):
            anchor = Path(path.anchor or ".")
            relative = str(path.relative_to(path.anchor)) if path.anchor else pattern
            matches = (file for file in sorted(anchor.glob(relative)) if not _is_folder(file))
            found += [(file, file.parent) for file in matches]
        else:
            found.append((path, path.parent))
    ours = out.resolve()
    return [pair for pair in dict.fromkeys(found) if ours not in pair[0].absolute().parents]


def _is_folder(path: Path) -> bool:
    """Like `is_dir`, which raises for a link whose target is too long a name."""
    try:
        return path.is_dir()
    except OSError:
        return False


def name_inputs(inputs: Sequence[tuple[Path, Path]]) -> dict[str, Path]:
    """A distinct output name for every file: its path without ending, made longer on a clash."""
    named: dict[str, Path] = {}
    taken: set[str] = set()
    seen: set[Path] = set()
    for file, root in inputs:
        if file in seen:
            continue
        seen.add(file)
        relative = file.relative_to(root)
        stem = relative.with_suffix("").as_posix()
        candidates = (stem, relative.as_posix().replace(".", "_"), f"{stem}_{len(named)}")
        names = [_safe(name, len(named)) for name in candidates]
        name = next((n for n in names if n.casefold() not in taken), f"n{len(named)}")
        taken.add(name.casefold())
        named[name] = file
    return named


def _safe(name: str, number: int) -> str:
    printable = name.isprintable() and not any(c in name for c in '\\:*?"<>|')
    return name if printable and len(name.encode("utf-8", "surrogatepass")) < 200 else f"n{number}"
