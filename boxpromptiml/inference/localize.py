"""`boxpromptiml localize`: a trained localizer on any images."""

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from rich.console import Console

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, RejectedInput, UserError
from boxpromptiml.inference.image_work import ImageWork
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.inference.maps import Precision
from boxpromptiml.inference.predictions import (
    Prediction,
    PredictionTable,
    Thresholds,
    is_whole,
    read_rows,
    write_prediction,
)
from boxpromptiml.inference.runtimes import Runtime, default_threads
from boxpromptiml.inference.shipped import weights_file
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io.files import (
    fingerprint,
    json_line,
    remove_temporaries,
    sha256_file,
    write_jsonl,
)
from boxpromptiml.io.image_inputs import find_inputs, name_inputs
from boxpromptiml.io.images import DEFAULT_LIMITS, ImageInfo
from boxpromptiml.io.options import AtLeastOne, ProcessCount, needs
from boxpromptiml.io.outputs import LOCALIZED
from boxpromptiml.io.processes import keep_freed_memory
from boxpromptiml.io.progress import note, parallel, track
from boxpromptiml.io.ray_engine import EngineName, chosen_engine
from boxpromptiml.io.sandbox import (
    DEFAULT_BOUNDS,
    Decoder,
    DirectDecoder,
    FileDecoder,
    IsolatedDecoder,
    for_pixels,
)
from boxpromptiml.records import ImageArray
from boxpromptiml.segmenters.config import SegmenterConfig

_MAX_PIXELS = 10**9
_VERSION = 5  # raise it when a prediction changes without a setting changing


@needs("decode_seconds max_pixels", "isolate", True)
@needs("batch_size flips", "tile", False)
@needs("batch_size", "engine", "processes")
@needs("num_workers address gpus_per_worker", "engine", "ray")
def localize(
    images: list[str],
    out: Path,
    checkpoint: Path | None = None,
    tile: bool = False,
    threshold: float | None = None,
    fpr: float | None = None,
    batch_size: AtLeastOne = 4,
    overlays: bool = True,
    device: str = "auto",
    segmenter: SegmenterConfig | None = None,
    runtime: Runtime = "auto",
    precision: Precision = "fp32",
    isolate: bool = True,
    decode_seconds: float = DEFAULT_BOUNDS.seconds,
    max_pixels: int = DEFAULT_LIMITS.max_pixels,
    threads: int | None = None,
    report: bool = False,
    copy_move: bool | None = None,
    flips: bool | None = None,
    engine: EngineName = "processes",
    num_workers: ProcessCount = 0,
    address: str | None = None,
    gpus_per_worker: float = 0.0,
) -> int:
    """Localize manipulated pixels in any images: files, folders (with all below) and globs.

    Hidden files of a folder, whose names begin with a dot, are left out unless they are named.

    Writes prob/NAME.png (16-bit probability at the stored size), mask/NAME.png, overlay/NAME.jpg,
    predictions.jsonl and predictions.csv: per image its score (the probability that anything in it
    is manipulated, calibrated where the column says so), the threshold, its false-alarm rate where
    known, and the fraction of flagged pixels. Inputs that cannot be read or match no image are
    listed in errors.jsonl, the rest is localized, and the exit status is 3. The same command
    resumes a killed job: predictions by the same weights and settings are kept. Rows of other
    images are kept too.

    Args:
        images: Files, folders or quoted glob patterns.
        out: Folder to write.
        checkpoint: A checkpoint of `boxpromptiml fit`, a .safetensors or .onnx file of `export`, or
            a folder of `save_pretrained`. Default: the student that ships with the package.
        tile: Overlapping tiles at the stored resolution instead of the checkpoint's own input. For
            `native` inputs images of more than 4 megapixels are always tiled, and their maps are
            the mean of the tiles' and of one at 1024 pixels; with this option of the tiles alone.
        threshold: A pixel is flagged strictly above it; the checkpoint's by default.
        fpr: In place of --threshold: the false-alarm rate to have, such as 0.01 for a threshold
            that on average 1 % of the pixels of an authentic image are above. The column
            image_threshold then gives the one that 1 % of the authentic images' scores are above.
            For a checkpoint that `boxpromptiml calibrate` has measured, as the shipped student.
        batch_size: Images per forward pass.
        overlays: Write overlay/.
        device: cpu or cuda; auto: a GPU if there is one.
        segmenter: Refine the maps with these regions instead of the checkpoint's own
            (`--segmenter.name=none` for the coarse maps of an image-label checkpoint).
        runtime: What runs the network. `auto`: PyTorch, and ONNX Runtime or OpenVINO for .onnx;
            `compile` spends a minute on every new size, and pays off for many images of one size.
        precision: bf16 is faster where the processor supports it, and not exact; for torch, compile
            and openvino.
        isolate: Decode images in a child process, so that a file that breaks the decoder does not
            end the job; run an .onnx network in another, with limits on time and memory.
        decode_seconds: Limit of isolated decoding per image, in seconds of processor time.
        max_pixels: Images of more pixels are rejected; 48 megapixels take 2 GB of memory.
        threads: Threads of the network. Default: OMP_NUM_THREADS, else the number of processors
            that are idle when the job starts; more would wait for each other.
        report: Also write case.html: one page to read, print or mail, with the image, map, marked
            regions and file of each of the 100 images with the highest scores.
        copy_move: Also find regions that were copied within the image, by matching the image with
            itself, and add them to the map. Default: as the checkpoint says; a calibration that
            was measured with copies holds only with them.
        flips: Average over each image and its two mirror images, in three times the time; not where
            it is tiled. Default: as the checkpoint says; its calibration holds only so.
        engine: ray localizes single images in workers with Ray (extra `ray`); processes: all in
            this process.
        num_workers: Ray's workers; 0: as many as there is room for.
        address: Of a running Ray cluster, such as auto; every node must see the same files. By
            default Ray is started on this machine for the job.
        gpus_per_worker: Number or fraction of GPUs for each of Ray's workers; there must be a GPU
            where the job is started, too.

    Raises:
        UserError: If an option is out of range, the checkpoint cannot be used, or another job
            writes to `out`.
    """
    if not 0 <= (threshold or 0.0) <= 1:
        raise UserError(f"--threshold must be in [0, 1], got {threshold}")
    if threshold is not None and fpr is not None:
        raise UserError("--threshold and --fpr: give one of them")
    ray = chosen_engine(engine, address, gpus_per_worker)
    if ray is not None:
        device = ("cuda" if gpus_per_worker else "cpu") if device == "auto" else device
        threads = 1 if threads is None else threads
    LOCALIZED.require(out)
    keep_freed_memory()
    open_decoder = partial(_decoder, isolate, decode_seconds, max_pixels)
    with open_decoder() as decode:  # starts meanwhile
        threads = default_threads() if threads is None else threads
        load = partial(
            Localizer.load,
            checkpoint, device, segmenter, runtime, precision, threads, isolate, copy_move, flips,
        )  # fmt: skip
        localizer = load()
        note(f"runtime: {localizer.runtime}, {threads} threads")
        if max_pixels > DEFAULT_LIMITS.max_pixels and localizer.spec.input.error_levels:
            raise UserError(
                f"--max_pixels: error levels, which this checkpoint uses, are computed for at most "
                f"{DEFAULT_LIMITS.max_pixels} pixels"
            )
        limits = _thresholds(localizer.spec, threshold, fpr, tile, segmenter)
        inputs, rejected = find_inputs(images, out)
        if not inputs:
            raise UserError("; ".join(f"{one.path}: {one.message}" for one in rejected))
        fingerprint_of = partial(_fingerprint, checkpoint, tile, limits.threshold)
        made_by = fingerprint_of(localizer)
        write = partial(write_prediction, out, limits=limits, overlays=overlays, made_by=made_by)
        with LOCALIZED.hold(out):
            remove_temporaries(out)
            job = _Job(out, made_by, overlays, read_rows(out))
            named = name_inputs(inputs, {n: Path(row.path) for n, row in job.earlier.items()})
            for error in rejected:
                job.reject(error)
            todo = {name: path for name, path in named.items() if not job.is_done(name, path)}
            with PredictionTable(out, job.earlier.values()) as table:
                work = ImageWork(load, open_decoder, write, fingerprint_of, made_by, tile)
                results: Iterator[Prediction | RejectedInput] = (
                    _here(work, _decoded(todo, decode, job.reject), localizer, batch_size)
                    if ray is None
                    else parallel(work, list(todo.items()), num_workers, "localizing", ray=ray)
                )
                for row in results:
                    job.reject(row) if isinstance(row, RejectedInput) else table.append(row)
                lost = {error.path for error in job.errors}
                table.remove_changed({n: path for n, path in named.items() if str(path) in lost})
            if ray is not None:
                remove_temporaries(out)  # of workers that died
            if report:
                path = _report(out, named, localizer, weights_file(checkpoint), decode, job)
                sys.stdout.write(f"{path}\n")
    there = f" ({len(named) - len(todo)} were there already)" if len(todo) < len(named) else ""
    count = len(named) + len(rejected) - len(job.errors)
    sys.stdout.write(f"{out}: {count} localized{there}, {len(job.errors)} rejected\n")
    return EXIT_REJECTED if job.errors else EXIT_OK


def _thresholds(
    spec: ModelSpec,
    threshold: float | None,
    fpr: float | None,
    tile: bool,
    segmenter: SegmenterConfig | None,
) -> Thresholds:
    """The thresholds that the options ask for, with their false-alarm rate where it is known.

    Raises:
        UserError: If the checkpoint does not know the threshold of this false-alarm rate, or knows
            it for other maps than the options ask for.
    """
    known = spec.calibration
    own = "none" if spec.refinement is None else spec.refinement.segmenter.name
    with_copies = known is not None and known.copy_weight is not None
    same_maps = (
        not tile and spec.copy_move == with_copies and (segmenter is None or segmenter.name == own)
    )
    if fpr is None:
        limit = spec.threshold if threshold is None else threshold
        rate = known.pixel_fpr(limit) if known is not None and same_maps else None
        return Thresholds(limit, rate, calibrated=known is not None)
    if known is None:
        raise UserError(
            "--fpr: this checkpoint knows no false-alarm rates for such maps; measure them on "
            "validation images with `boxpromptiml calibrate`, or give --threshold"
        )
    if not same_maps:
        raise UserError(
            "--fpr: the false-alarm rates are those of maps without --tile, with the checkpoint's "
            "own regions and with or without copies as it says; give --threshold"
        )
    try:
        limit = known.pixel_threshold(fpr)
    except UserError as error:
        raise UserError(f"--fpr: {error}") from error
    try:
        image_limit = known.image_threshold(fpr)
    except UserError as error:
        note(f"no image_threshold: {error}")
        image_limit = None
    return Thresholds(limit, fpr, image_limit, calibrated=True)


def _report(
    out: Path,
    named: Collection[str],
    localizer: Localizer,
    weights: Path,
    decode: FileDecoder,
    job: "_Job",
) -> Path:
    """Write the page about the images of this job, of which some may be from an earlier run."""
    try:
        from boxpromptiml.inference.case_report import write_case_report  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(f"--report: {error.name} is not installed") from error
    facts = {"Weights": weights.name, "SHA-256": sha256_file(weights), "Run by": localizer.runtime}
    bad = {str(error.path) for error in job.errors}
    rows = [row for row in read_rows(out).values() if row.made_by == job.made_by]
    shown = [row for row in rows if row.name in named and row.path not in bad]
    return write_case_report(out, shown, localizer.spec, facts, decode, len(bad))


def _fingerprint(
    checkpoint: Path | None, tile: bool, threshold: float, localizer: Localizer
) -> str:
    """Fingerprint of everything but the image that changes a prediction."""
    segmenter = localizer.segmenter
    return fingerprint(
        {
            "weights": sha256_file(weights_file(checkpoint)),
            "runtime": localizer.runtime,
            "tile": tile,
            "copy_move": localizer.spec.copy_move,
            "flips": localizer.spec.flips,
            "threshold": threshold,
            "segmenter": None if segmenter is None else segmenter.settings,
            "version": _VERSION,
        }
    )[:16]


class _Job:
    """Writes the outputs of a job, and knows those of earlier runs.

    Attributes:
        earlier: Rows of earlier runs, by name.
        made_by: Fingerprint of weights and settings.
        errors: Rejected inputs of this run; each is written to errors.jsonl at once.
    """

    def __init__(
        self,
        out: Path,
        made_by: str,
        overlays: bool,
        earlier: dict[str, Prediction],
    ) -> None:
        self.earlier = earlier
        self.errors: list[RejectedInput] = []
        self._out, self.made_by, self._overlays = out, made_by, overlays
        self._console = Console(stderr=True)
        write_jsonl(out / "errors.jsonl", ())

    def is_done(self, name: str, path: Path) -> bool:
        """Whether an earlier run has localized the same image with the same settings."""
        row = self.earlier.get(name)
        if row is None or row.made_by != self.made_by or not path.is_file():
            return False
        there = [self._out / part / f"{name}.png" for part in ("prob", "mask")]
        there += [self._out / "overlay" / f"{name}.jpg"] if self._overlays else []
        return all(map(is_whole, there)) and sha256_file(path) == row.sha256

    def reject(self, error: RejectedInput) -> None:
        """Report a rejected input, and append it to errors.jsonl."""
        self._console.print(f"rejected {error}", markup=False, soft_wrap=True)
        self.errors.append(error)
        with (self._out / "errors.jsonl").open("ab") as stream:
            stream.write(json_line(error.as_row()))


def _decoder(isolate: bool, seconds: float, max_pixels: int) -> AbstractContextManager[FileDecoder]:
    if not 1 <= max_pixels <= _MAX_PIXELS:
        raise UserError(f"--max_pixels must be from 1 to {_MAX_PIXELS}, got {max_pixels}")
    if not isolate:
        return nullcontext(DirectDecoder())
    return IsolatedDecoder(*for_pixels(max_pixels, seconds))


def _here(
    work: ImageWork,
    decoded: Iterator[tuple[tuple[str, Path, ImageInfo], ImageArray]],
    localizer: Localizer,
    batch_size: int,
) -> Iterator[Prediction]:
    """As `work` on each image, in batches and in this process."""
    for (name, path, info), image, found in localizer.localize_each(decoded, batch_size, work.tile):
        yield work.write(name, path, image, info, found.prob, found.score)


def _decoded(
    named: dict[str, Path], decode: Decoder, reject: Callable[[RejectedInput], None]
) -> Iterator[tuple[tuple[str, Path, ImageInfo], ImageArray]]:
    """Name, path, origin and pixels of every image that can be decoded, with progress."""
    for name, path in track(named.items(), "localizing", len(named)):
        try:
            image, info = decode(path)
        except RejectedInput as error:
            reject(error)
        else:
            yield (name, path, info), image
