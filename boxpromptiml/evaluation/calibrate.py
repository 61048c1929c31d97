"""`boxpromptiml calibrate`: image probabilities that mean what they say, and false-alarm rates."""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, RejectedInput, UserError
from boxpromptiml.inference.calibration import Calibration
from boxpromptiml.inference.export import with_spec
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.inference.shipped import weights_file
from boxpromptiml.io.options import AtLeastOne
from boxpromptiml.io.outputs import calibrated
from boxpromptiml.io.processes import keep_freed_memory
from boxpromptiml.io.progress import track
from boxpromptiml.manifests.sources import Source, read_sources, stored_image
from boxpromptiml.metrics.calibration import (
    AuthenticPixels,
    Reliability,
    error_by_chance,
    fit_platt,
    fold_numbers,
    held_out,
    image_threshold,
    reliability,
)
from boxpromptiml.metrics.histograms import Floats
from boxpromptiml.records import ImageArray, MaskArray, Split

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
_logger = logging.getLogger(__name__)
_ALMOST_0 = 2.0**-24  # a float32 closer to 1 is 1, whose logit is infinite

CalibrationMethod = Literal["platt", "temperature"]


def calibrate(
    manifest: list[Path],
    checkpoint: Path | None = None,
    out: Path | None = None,
    split: Split | None = "val",
    method: CalibrationMethod = "platt",
    folds: int = 5,
    batch_size: AtLeastOne = 4,
    device: str = "auto",
    copy_move: bool | None = None,
    flips: bool | None = None,
) -> int:
    """Calibrate a localizer on validation images, and measure thresholds by false-alarm rate.

    Writes a copy of the checkpoint that knows the calibration: `localize` then reports image
    probabilities that agree with the fraction of manipulated images, and takes --fpr. `export`
    keeps it. Prints the expected calibration error before and after, on images held back from
    the fit, and for each false-alarm rate the thresholds of pixels and images, with the rate that
    they had on authentic images held back. Needs image labels only, no masks.

    A probability holds where as large a fraction of the images is manipulated as in the manifest,
    a false-alarm rate for authentic images like those.

    Args:
        manifest: Manifests with manipulated and authentic images that were not trained on.
        checkpoint: A checkpoint of `boxpromptiml fit` or a .safetensors file of `export`. Default:
            the student that ships with the package.
        out: File to write, with the ending of the checkpoint. Default: only print.
        split: Split of the manifests to use; null for all rows.
        method: platt: temperature and bias (Platt 1999). temperature: no bias (Guo et al. 2017).
        folds: Parts that are held back in turn; images of one group stay together.
        batch_size: Images per forward pass.
        device: cpu or cuda; auto: a GPU if there is one.
        copy_move: Whether regions that were copied within the image are added to the maps and
            raise the probability; the copy that is written then does so by itself. Default: as the
            checkpoint says.
        flips: Whether maps are averaged over the image's mirror images. Default: as the checkpoint
            says.

    Raises:
        UserError: If an option is out of range, the checkpoint cannot be used, or there are too few
            images of either kind.

    Returns:
        Exit status: 3 if images could not be read; they are left out and named, else 0.
    """
    weights = weights_file(checkpoint)
    if weights.suffix.lower() == ".onnx":
        raise UserError(f"{weights}: calibrate the checkpoint it was made from, and export again")
    if out is not None:
        calibrated(weights.suffix).require(out, weights)
    keep_freed_memory()
    localizer = Localizer.load(weights, device, copy_move=copy_move, flips=flips)
    sources = read_sources(manifest, split)
    report = calibrate_localizer(localizer, sources, method, folds, batch_size)
    sys.stdout.write(report.to_text())
    if out is not None:
        with_spec(weights, replace(localizer.spec, calibration=report.calibration), out)
        sys.stdout.write(f"{out}: written\n")
    return EXIT_REJECTED if report.unreadable else EXIT_OK


@dataclass(frozen=True)
class CalibrationReport:
    """A calibration and how good it is.

    Attributes:
        calibration: To be stored with the weights.
        unlabelled: Number of images without a label, which were left out.
        unreadable: Number of images that could not be read, which were left out.
        before: Image scores without calibration.
        after: Each image's score, calibrated without the images of its fold.
        ece_by_chance: Expected calibration error that exactly right scores of as many images have.
        pixel_fpr: For each of `RATES`, its pixel threshold's rate on images held back.
        image_fpr: For each rate of `calibration.image_thresholds`, its threshold's rate on images
            held back.
    """

    calibration: Calibration
    unlabelled: int
    unreadable: int
    before: Reliability
    after: Reliability
    ece_by_chance: float
    pixel_fpr: tuple[float, ...]
    image_fpr: tuple[float, ...]

    def to_text(self) -> str:
        """The report for people."""
        found = self.calibration
        lines = [
            f"{found.images} images: {found.images - found.authentic} manipulated, "
            f"{found.authentic} authentic ({self._left_out()})",
            f"image probability = sigmoid(logit / {found.temperature:.4g} {found.bias:+.4g})"
            + self._of_copies(),
            "on images held back from the fit, before and after:",
            f"  expected calibration error {self.before.ece:.4f}, {self.after.ece:.4f} "
            f"({self.ece_by_chance:.4f} by chance, with exactly right scores)",
            f"  log loss {self.before.log_loss:.4f}, {self.after.log_loss:.4f}",
            "",
            f"{'probability':>12}{'manipulated':>13}{'images':>8}   after calibration, held back",
            *(f"{b.score:>12.3f}{b.manipulated:>13.3f}{b.images:>8}" for b in self.after.bins),
            "",
            f"{'FPR':>7}{'pixels above':>14}{'held back':>11}{'images above':>14}{'held back':>11}",
        ]
        of_images = dict(found.image_thresholds)
        held_back = dict(zip(of_images, self.image_fpr, strict=True))
        for (rate, threshold), fpr in zip(found.pixel_thresholds, self.pixel_fpr, strict=True):
            line = f"{rate:>7g}{threshold:>14.4f}{fpr:>11.4f}"
            known = rate in of_images
            line += f"{of_images[rate]:>14.4f}{held_back[rate]:>11.4f}" if known else f"{'-':>14}"
            lines.append(line)
        return "\n".join([*lines, ""])

    def _of_copies(self) -> str:
        weight = self.calibration.copy_weight
        return "" if weight is None else f", {weight:+.4g} where regions match another place"

    def _left_out(self) -> str:
        unreadable = f", {self.unreadable} that cannot be read" if self.unreadable else ""
        return f"{self.unlabelled} without a label{unreadable} left out"


def calibrate_localizer(
    localizer: Localizer,
    sources: Sequence[Source],
    method: CalibrationMethod = "platt",
    folds: int = 5,
    batch_size: int = 4,
) -> CalibrationReport:
    """Calibrate a localizer on images with labels; see `calibrate`.

    Args:
        localizer: A calibration that it already has is not used.
        sources: Images that were not trained on; those without a label are left out.
        method: As in `calibrate`.
        folds: As in `calibrate`.
        batch_size: As in `calibrate`.

    Raises:
        UserError: As `calibrate`.
    """
    if folds < 2:
        raise UserError(f"--folds must be 2 or more, got {folds}")
    known = [source for source in sources if source.sample.label is not None]
    if not known:
        raise UserError("no image of the manifests has a label: there is nothing to calibrate on")
    fold_of = fold_numbers([source.sample.group for source in known], folds)
    parts = [
        measure(localizer, [known[i] for i in np.flatnonzero(fold_of == fold)], batch_size)
        for fold in range(folds)
    ]
    return calibration_report(parts, method, len(sources) - len(known))


@dataclass(frozen=True)
class Measured:
    """What a calibration needs to know of some images.

    Attributes:
        logits: (N,) image logits.
        manipulated: (N,) whether an image is manipulated.
        pixels: Probabilities of the pixels of the authentic ones.
        copied: (N,) whether an image has copied regions; None if they were not looked for.
        unreadable: Number of images that could not be read; they are in none of the others.
    """

    logits: Floats
    manipulated: MaskArray
    pixels: AuthenticPixels
    copied: MaskArray | None = None
    unreadable: int = 0


def measure(localizer: Localizer, sources: Sequence[Source], batch_size: int = 4) -> Measured:
    """Run a localizer over images with known labels; a calibration that it has is not used.

    Images that cannot be read are logged and left out.
    """
    localizer = replace(localizer, spec=replace(localizer.spec, calibration=None))
    scores, pixels = np.full(len(sources), np.nan), AuthenticPixels()
    copied = np.zeros(len(sources), bool)
    for number, _, found in localizer.localize_each(_readable(sources), batch_size):
        scores[number], copied[number] = found.score, found.copied
        if sources[number].sample.label == 0:
            pixels.add(found.prob)
    was_read = ~np.isnan(scores)
    scores = scores[was_read].clip(_ALMOST_0, 1 - _ALMOST_0)
    manipulated = np.array([source.sample.label == 1 for source in sources], bool)[was_read]
    return Measured(
        np.log(scores / (1 - scores)),
        manipulated,
        pixels,
        copied[was_read] if localizer.spec.copy_move else None,
        int((~was_read).sum()),
    )


def _readable(sources: Sequence[Source]) -> Iterator[tuple[int, ImageArray]]:
    """The images that can be read, with their places in `sources`."""
    for number, source in enumerate(track(sources, "localizing", len(sources))):
        try:
            yield number, stored_image(source)
        except RejectedInput as error:
            _logger.warning("%s; left out", error)


def calibration_report(
    folds: Sequence[Measured], method: CalibrationMethod = "platt", unlabelled: int = 0
) -> CalibrationReport:
    """The calibration that fits all folds, and how good it is on each when fitted to the others.

    The folds may come from different localizers of one recipe, each measured on images that it was
    not trained on: what results is the calibration of a localizer that was trained on all of them.

    Args:
        folds: Two or more, all with copies or all without.
        method: As in `calibrate`.
        unlabelled: Number of images that were left out.

    Raises:
        UserError: If there are too few images of either kind.
    """
    logits = np.concatenate([fold.logits for fold in folds])
    manipulated = np.concatenate([fold.manipulated for fold in folds])
    copied = _copied(folds)
    fold_of = np.repeat(np.arange(len(folds)), [len(fold.logits) for fold in folds])
    platt = fit_platt(logits, manipulated, method == "platt", copied)
    before = reliability(1 / (1 + np.exp(-logits)), manipulated)
    known = Measured(logits, manipulated, AuthenticPixels(), copied)
    kept = held_out(logits, manipulated, fold_of, method == "platt", copied)
    after = reliability(kept, manipulated)
    pixels = [fold.pixels for fold in folds]
    every = sum(pixels, AuthenticPixels())
    authentic = platt(logits, copied)[~manipulated]
    rates = [rate for rate in RATES if rate * len(authentic) >= 1]
    calibration = Calibration(
        temperature=platt.temperature,
        bias=platt.bias,
        images=len(logits),
        authentic=every.images,
        pixels=every.pixels,
        pixel_thresholds=tuple((rate, every.threshold(rate)) for rate in RATES),
        image_thresholds=tuple((rate, image_threshold(authentic, rate)) for rate in rates),
        ece=after.ece,
        ece_before=before.ece,
        copy_weight=None if copied is None else platt.copy_weight,
    )
    return CalibrationReport(
        calibration,
        unlabelled,
        sum(fold.unreadable for fold in folds),
        before,
        after,
        error_by_chance(kept),
        tuple(_held_back_pixel_fpr(pixels, rate) for rate in RATES),
        tuple(_held_back_image_fpr(known, fold_of, method == "platt", rates)),
    )


def _copied(folds: Sequence[Measured]) -> MaskArray | None:
    known = [fold.copied for fold in folds if fold.copied is not None]
    if not known:
        return None
    if len(known) < len(folds):
        raise ValueError("some folds were measured with copies and some without")
    return np.concatenate(known)


def _held_back_pixel_fpr(folds: Sequence[AuthenticPixels], rate: float) -> float:
    """Mean rate of images whose threshold was measured on the other folds; nan if there is none."""
    parts = []
    for number, held in enumerate(folds):
        others = sum((*folds[:number], *folds[number + 1 :]), AuthenticPixels())
        if held.images and others.images:
            parts.append((held.fpr(others.threshold(rate)), held.images))
    return _weighted(parts)


def _held_back_image_fpr(
    known: Measured, fold_of: npt.NDArray[np.intp], with_bias: bool, rates: Sequence[float]
) -> list[float]:
    """As `_held_back_pixel_fpr`, for images scored by a fit without the fold, at each rate."""
    parts: list[list[tuple[float, int]]] = [[] for _ in rates]
    for fold in np.unique(fold_of):
        rest = fold_of != fold
        copied = None if known.copied is None else known.copied[rest]
        platt = fit_platt(known.logits[rest], known.manipulated[rest], with_bias, copied)
        scores = platt(known.logits, known.copied)
        held, others = scores[~rest & ~known.manipulated], scores[rest & ~known.manipulated]
        if len(held):
            for part, rate in zip(parts, rates, strict=True):
                part.append((float((held > image_threshold(others, rate)).mean()), len(held)))
    return [_weighted(part) for part in parts]


def _weighted(parts: Sequence[tuple[float, int]]) -> float:
    rates, images = zip(*parts, strict=True) if parts else ((float("nan"),), (1,))
    return float(np.average(rates, weights=images))
