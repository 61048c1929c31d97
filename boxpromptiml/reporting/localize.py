"""Using a trained localizer on images nobody has annotated: in Python, and as `localize`."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, overload

import torch
from rich.console import Console
from rich.progress import track

from boxpromptiml import images as pixel_io
from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, RejectedInput, UserError
from boxpromptiml.models.bayes import region_posterior
from boxpromptiml.models.checkpoint import Card
from boxpromptiml.models.inference import Network, probability_maps, tiled_map
from boxpromptiml.models.inputs import whole_image
from boxpromptiml.models.runtimes import Precision, Runtime, open_network
from boxpromptiml.provenance import write_jsonl
from boxpromptiml.records import ImageArray, ProbArray, Segmenter
from boxpromptiml.reporting.input_files import find_inputs, name_inputs
from boxpromptiml.reporting.predictions import Prediction, write_prediction, write_tables
from boxpromptiml.segmenters.config import SegmenterConfig, build_segmenter

_MOST_WHOLE_PIXELS = 4_000_000


class Localized(NamedTuple):
    """Answer for one image."""

    prob: ProbArray  # (H, W) at the stored size
    score: float  # [0, 1], that the image is manipulated anywhere


@dataclass(frozen=True)
class Localizer:
    """A trained student or WCBnet, ready for images of any size.

    Example:
        localizer = Localizer.load("student.ckpt")
        prob = localizer("photo.jpg")            # (H, W) float32 in [0, 1]
        first, second = localizer(["a.png", array])

    Attributes:
        network: What answers.
        card: What its file says of it.
        device: Of the tensors that go through the network.
        segmenter: Refines the maps by its regions.
        runtime: What runs the network, where, at which precision; for a person.
    """

    network: Network
    card: Card
    device: str = "cpu"
    segmenter: Segmenter | None = None
    runtime: str = "torch"

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        device: str = "cpu",
        segmenter: SegmenterConfig | None = None,
        runtime: Runtime = "auto",
        precision: Precision = "fp32",
    ) -> "Localizer":
        """Load a localizer's file; it is read as data, no code in it is run.

        Args:
            checkpoint: Of `boxpromptiml fit`, or `.safetensors` or `.onnx` of `export`.
            device: Where the network runs.
            segmenter: Refines the maps by its regions; None: as the checkpoint says. With the
                name of the checkpoint's own and its weights, the checkpoint's settings stay.
            runtime: What runs the network; see `models.runtimes`.
            precision: bf16 is faster where the processor knows it, and not exact.

        Raises:
            UserError: If it is missing, damaged or no such file, if the runtime cannot run it, or
                if its segmenter needs weights that are not given.
        """
        opened = open_network(Path(checkpoint), runtime, device, precision)
        card = opened.card
        if card.refinement is not None:
            own = SegmenterConfig.from_dict(card.refinement.segmenter)
            if segmenter is None:
                segmenter = own
            elif segmenter.weights is not None and segmenter.name == own.name:
                segmenter = replace(own, weights=segmenter.weights, cache=segmenter.cache)
        regions = None if segmenter is None else build_segmenter(segmenter, device)
        return cls(opened.network, card, opened.device, regions, opened.description)

    @overload
    def __call__(  # type: ignore[overload-overlap] # a str is a Sequence[str] to mypy
        self, image: str | Path | ImageArray, tile: bool = False
    ) -> ProbArray: ...
    @overload
    def __call__(
        self, image: Sequence[str | Path | ImageArray], tile: bool = False
    ) -> list[ProbArray]: ...
    def __call__(
        self, image: str | Path | ImageArray | Sequence[str | Path | ImageArray], tile: bool = False
    ) -> ProbArray | list[ProbArray]:
        """Probability of manipulation for every pixel, at the stored size.

        Args:
            image: A path, an RGB array (H, W, 3) uint8, or several of either.
            tile: Work on overlapping tiles at the stored resolution.

        Raises:
            RejectedInput: If a file cannot be decoded.
        """
        if isinstance(image, (str, Path)) or hasattr(image, "shape"):
            return self.localize([_as_array(image)], tile)[0].prob  # type: ignore[arg-type]
        return [found.prob for found in self.localize([_as_array(one) for one in image], tile)]

    @torch.inference_mode()
    def localize(self, images: Sequence[ImageArray], tile: bool = False) -> list[Localized]:
        """Maps and image scores of one batch of RGB arrays (H, W, 3) uint8.

        With a `native` network, images of more than 4 megapixels are tiled in any case: whole, they
        would take gigabytes.
        """
        tiled = [tile or self._too_large(image) for image in images]
        whole = iter(self._whole([i for i, t in zip(images, tiled, strict=True) if not t]))
        found = [
            self._tiled(image) if in_tiles else next(whole)
            for image, in_tiles in zip(images, tiled, strict=True)
        ]
        if self.segmenter is None:
            return found
        prior = self.card.refinement.prior if self.card.refinement else "image"
        return [
            Localized(region_posterior(coarse, self.segmenter.regions(image), prior), score)
            for image, (coarse, score) in zip(images, found, strict=True)
        ]

    def _too_large(self, image: ImageArray) -> bool:
        pixels = image.shape[0] * image.shape[1]
        return self.card.input.fit == "native" and pixels > _MOST_WHOLE_PIXELS

    def _whole(self, images: Sequence[ImageArray]) -> list[Localized]:
        fitted = [whole_image(image, self.card.input).to(self.device) for image in images]
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        maps, scores = probability_maps(self.network, fitted, sizes)
        return [Localized(p.numpy(), float(s)) for p, s in zip(maps, scores, strict=True)]

    def _tiled(self, image: ImageArray) -> Localized:
        network_input = self.card.input
        stored = whole_image(image, replace(network_input, fit="native")).to(self.device)
        prob, score = tiled_map(self.network, stored, network_input.size)
        return Localized(prob.numpy(), float(score))

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, device: str = "cpu"
    ) -> "Localizer":
        """Load a folder of `save_pretrained` or a repository of the Hub: `hub.fetch`, `load`."""
        from boxpromptiml.reporting import hub  # noqa: PLC0415

        return cls.load(hub.fetch(name, revision), device)

    def save_pretrained(
        self, folder: str | Path, evaluation: str | Path | None = None, licence: str | None = None
    ) -> None:
        """Write weights and model card into a folder: `reporting.hub.save`."""
        from boxpromptiml.reporting import hub  # noqa: PLC0415

        hub.save(self.network, self.card, folder, evaluation, licence)

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = True,
        evaluation: str | Path | None = None,
        licence: str | None = None,
    ) -> str:
        """Upload weights and model card, return the commit's address: `reporting.hub.push`."""
        from boxpromptiml.reporting import hub  # noqa: PLC0415

        return hub.push(self.network, self.card, repo_id, private, evaluation, licence)


def _as_array(image: str | Path | ImageArray) -> ImageArray:
    if isinstance(image, (str, Path)):
        return pixel_io.read_image(image)[0]
    if image.dtype != "uint8" or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(
            f"an image array must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
        )
    return image


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
    """
    if not 0 <= (threshold or 0.0) <= 1:
        raise UserError(f"--threshold must be in [0, 1], got {threshold}")
    localizer = Localizer.load(checkpoint, device, segmenter, runtime, precision)
    sys.stderr.write(f"runtime: {localizer.runtime}\n")
    inputs = name_inputs(find_inputs(images, out))
    if not inputs:
        raise UserError(f"no files found in {', '.join(images)}")
    limit = localizer.card.threshold if threshold is None else threshold
    predictions: list[Prediction] = []
    errors: list[RejectedInput] = []
    try:
        for batch in _batches(inputs, batch_size, errors):
            found = localizer.localize([image for _, image, _ in batch], tile)
            for (name, image, info), (prob, score) in zip(batch, found, strict=True):
                path = inputs[name]
                predictions.append(
                    write_prediction(out, name, path, image, info, prob, score, limit, overlays)
                )
    finally:  # an interrupted run keeps the rows of what is finished
        write_tables(out, predictions)
        write_jsonl(out / "errors.jsonl", [error.as_row() for error in errors])
    sys.stdout.write(f"{out}: {len(predictions)} localized, {len(errors)} rejected\n")
    return EXIT_REJECTED if errors else EXIT_OK


def _batches(
    inputs: dict[str, Path], batch_size: int, errors: list[RejectedInput]
) -> Iterator[list[tuple[str, ImageArray, pixel_io.ImageInfo]]]:
    batch: list[tuple[str, ImageArray, pixel_io.ImageInfo]] = []
    console = Console(stderr=True)
    for name, path in track(inputs.items(), "localizing", console=console):
        try:
            image, info = pixel_io.read_image(path)
        except RejectedInput as error:
            console.print(f"rejected {error}", markup=False, soft_wrap=True)
            errors.append(error)
            continue
        batch.append((name, image, info))
        if len(batch) == max(batch_size, 1):
            yield batch
            batch = []
    if batch:
        yield batch
