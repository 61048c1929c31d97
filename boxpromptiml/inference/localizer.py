"""The Python API of a trained localizer: images in, probability maps out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar, overload

import numpy as np
from PIL.Image import Image as PillowImage

from boxpromptiml.errors import UserError
from boxpromptiml.geometry import resize_by_area, shrunk_size
from boxpromptiml.inference.copy_move import add_copies
from boxpromptiml.inference.maps import (
    FlipMean,
    Network,
    Precision,
    even_tile,
    probability_maps,
    tiled_map,
)
from boxpromptiml.inference.runtimes import Runtime, open_network
from boxpromptiml.inference.shipped import weights_file
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io.images import read_image
from boxpromptiml.models.bayes import region_posterior
from boxpromptiml.models.error_levels import scaled_error_levels
from boxpromptiml.models.inputs import MAX_WHOLE_PIXELS, FloatArray, to_planes, whole_image
from boxpromptiml.records import ImageArray, ProbArray, Segmenter
from boxpromptiml.segmenters.config import SegmenterConfig, build_segmenter

if TYPE_CHECKING:
    import torch

_OVERLAP = 128  # pixels that tiles of the network's input size share, as context
_NATIVE_TILE, _NATIVE_OVERLAP = 1024, 64  # at most; networks for native inputs take any size
_WHOLE_SIDE = 1024  # pixels on the longer side of a large image that is seen whole; decision 043
_MAX_BATCH_PIXELS = 4 * MAX_WHOLE_PIXELS  # images waiting for their batch, and their maps

T = TypeVar("T")
Picture: TypeAlias = "str | Path | ImageArray | PillowImage | torch.Tensor"


class Localized(NamedTuple):
    """The prediction for one image."""

    prob: ProbArray  # (H, W) at the stored size
    score: float  # [0, 1], that the image is manipulated anywhere; calibrated if the file says how
    copied: bool = False  # whether regions were added that match another place of the image


@dataclass(frozen=True)
class Localizer:
    """A trained student or WCBnet, ready for images of any size.

    Examples:
        ```python
        localizer = Localizer.load()  # the student that ships with the package
        prob = localizer("photo.jpg")  # (H, W) float32 in [0, 1]
        first, second = localizer(["a.png", array])
        ```

    Attributes:
        network: The network, in any runtime.
        spec: Its model spec, which says whether copied regions are added, and mirror images used.
        segmenter: Its regions refine the maps; None for no refinement.
        runtime: Runtime, device and precision, as text.
    """

    network: Network
    spec: ModelSpec
    segmenter: Segmenter | None = None
    runtime: str = "torch"

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | None = None,
        device: str = "cpu",
        segmenter: SegmenterConfig | None = None,
        runtime: Runtime = "auto",
        precision: Precision = "fp32",
        threads: int | None = None,
        isolate: bool = False,
        copy_move: bool | None = None,
        flips: bool | None = None,
    ) -> "Localizer":
        """Load a localizer's file as data, without running code in it.

        Args:
            checkpoint: A checkpoint of `boxpromptiml fit`, a `.safetensors` or `.onnx` file of
                `export`, or a folder of `save_pretrained`; None: the student that ships with the
                package.
            device: Where the network runs: cpu, cuda, or auto for a GPU if PyTorch finds one; an
                `.onnx` file then stays on the CPU.
            segmenter: Refines the maps with its regions; None: as the checkpoint says. If it only
                gives weights for the checkpoint's own segmenter, the checkpoint's settings are
                kept.
            runtime: What runs the network; see `inference.runtimes`.
            precision: bf16 is faster where the processor supports it, and not exact.
            threads: For the network; None: as the runtime does by itself.
            isolate: Run an `.onnx` file in a child process, under limits of time and memory.
            copy_move: Add regions that were copied within the image to the maps; None: as the file
                says. A score that is calibrated with copies is not calibrated without them; one
                that is calibrated without them does not know of them.
            flips: Average over the image and its mirror images, if it is not tiled, in three times
                the time; None: as the file says. With other flips a calibration does not hold, and
                is not used.

        Raises:
            UserError: If the file is missing, damaged or of another kind, if the runtime cannot run
                it, if its segmenter needs weights that are not given, or if `segmenter` has
                settings of another one.
        """
        if segmenter is not None:
            segmenter.refuse_idle()
        path = weights_file(checkpoint)
        if device == "auto":
            device = _found_device(path)
        opened = open_network(path, runtime, device, precision, threads, isolate)
        spec = opened.spec
        if spec.refinement is not None:
            own = spec.refinement.segmenter
            if segmenter is None:
                segmenter = own
            elif segmenter.weights is not None and segmenter.name == own.name:
                segmenter = replace(own, weights=segmenter.weights, cache=segmenter.cache)
        regions = None if segmenter is None else build_segmenter(segmenter, device)
        spec = spec.with_maps(copy_move, flips)
        return cls(opened.network, spec, regions, opened.description)

    @overload
    def __call__(  # type: ignore[overload-overlap] # a str is a Sequence[str] to mypy
        self, image: "Picture", tile: bool = False
    ) -> ProbArray: ...
    @overload
    def __call__(self, image: "Sequence[Picture]", tile: bool = False) -> list[ProbArray]: ...
    def __call__(
        self, image: "Picture | Sequence[Picture]", tile: bool = False
    ) -> ProbArray | list[ProbArray]:
        """Probability of manipulation for every pixel, at the stored size.

        Args:
            image: A path, an RGB array (H, W, 3) uint8, a PIL image (its pixels as stored, not
                turned by EXIF), a tensor (3, H, W), uint8 or float in [0, 1]; or several of these.
            tile: Work on overlapping tiles at the stored resolution, and on nothing else.

        Raises:
            RejectedInput: If a file cannot be decoded.
            UserError: If an array or a tensor is none of these.
        """
        if isinstance(image, (str, Path, PillowImage)) or hasattr(image, "shape"):
            return self.localize([_as_array(image)], tile)[0].prob  # type: ignore[arg-type]
        return [found.prob for found in self.localize([_as_array(one) for one in image], tile)]

    def localize(self, images: Sequence[ImageArray], tile: bool = False) -> list[Localized]:
        """Maps and image scores of one batch.

        Args:
            images: RGB arrays (H, W, 3) uint8, of any sizes.
            tile: Localize overlapping tiles at the stored size and join their maps, instead of the
                whole image at the network's input size. With a `native` input, images of more than
                4 megapixels are always tiled: as a whole they would take gigabytes. Unless `tile`
                asks for tiles alone, the logits of their maps are the mean of the tiles' and of
                those of the image shrunk to 1024 pixels.

        Returns:
            In the same order, the map (H, W) in [0, 1] at the stored size, and the image score.
        """
        tiled = [
            tile or self.spec.reads_tiles((image.shape[0], image.shape[1])) for image in images
        ]
        whole = iter(self._whole([i for i, t in zip(images, tiled, strict=True) if not t]))
        found = [
            self._tiled(image, at_two_scales=not tile) if in_tiles else next(whole)
            for image, in_tiles in zip(images, tiled, strict=True)
        ]
        return [self._localized(image, *one) for image, one in zip(images, found, strict=True)]

    def _localized(self, image: ImageArray, prob: ProbArray, logits: FloatArray) -> Localized:
        """The prediction from the network's map (H, W) and its image logits (N,) of N tiles."""
        if self.segmenter is not None:
            prior = self.spec.refinement.prior if self.spec.refinement else "image"
            prob = region_posterior(prob, self.segmenter.regions(image), prior)
        fused = add_copies(prob, image) if self.spec.copy_move else prob
        copied = fused is not prob
        return Localized(fused, self.spec.image_score(logits, copied), copied)

    def localize_each(
        self, images: Iterable[tuple[T, ImageArray]], batch_size: int = 8, tile: bool = False
    ) -> Iterator[tuple[T, ImageArray, Localized]]:
        """Localize any number of images, with no more than one batch of them in memory.

        Args:
            images: Pairs of any value that identifies the image, and its pixels (H, W, 3) uint8.
                They are taken one at a time, so a generator decodes no more than a batch ahead.
            batch_size: Images per forward pass, fewer if they are large; images of equal size are
                batched.
            tile: As in `localize`.

        Yields:
            In the same order, the image's identifying value, its pixels and its prediction.
        """
        known: list[T] = []
        pixels: list[ImageArray] = []
        for about, image in images:
            known.append(about)
            pixels.append(image)
            area = sum(one.shape[0] * one.shape[1] for one in pixels)
            if len(pixels) >= batch_size or area >= _MAX_BATCH_PIXELS:
                yield from zip(known, pixels, self.localize(pixels, tile), strict=True)
                known, pixels = [], []
        yield from zip(known, pixels, self.localize(pixels, tile), strict=True)

    def _whole(self, images: Sequence[ImageArray]) -> list[tuple[ProbArray, FloatArray]]:
        fitted = [whole_image(image, self.spec.input) for image in images]
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        network = FlipMean(self.network) if self.spec.flips else self.network
        maps, image_logits = probability_maps(network, fitted, sizes)
        return list(zip(maps, image_logits[:, None], strict=True))

    def _tiled(self, image: ImageArray, at_two_scales: bool) -> tuple[ProbArray, FloatArray]:
        levels = scaled_error_levels(image, self.spec.input.error_levels)
        whole = None
        if at_two_scales:
            shrunk = shrunk_size(image, _WHOLE_SIDE)
            whole = to_planes(resize_by_area(image, shrunk), resize_by_area(levels, shrunk))
        height, width = image.shape[:2]
        tile, overlap = self.spec.input.size, _OVERLAP
        if self.spec.input.mode == "native":
            overlap = _NATIVE_OVERLAP
            tile = (
                even_tile(height, _NATIVE_TILE, overlap),
                even_tile(width, _NATIVE_TILE, overlap),
            )
        return tiled_map(
            self.network,
            lambda rows, columns: to_planes(image[rows, columns], levels[rows, columns]),
            (height, width),
            tile,
            overlap,
            whole,
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        revision: str | None = None,
        device: str = "cpu",
        segmenter: SegmenterConfig | None = None,
        copy_move: bool | None = None,
        flips: bool | None = None,
    ) -> "Localizer":
        """Load a localizer from a folder of `save_pretrained` or from the Hugging Face Hub.

        Args:
            name: The folder, or a repository (owner/name), which is downloaded once.
            revision: Branch, tag or commit of the repository; None: its main branch.
            device: As in `load`.
            segmenter: As in `load`.
            copy_move: As in `load`.
            flips: As in `load`.

        Raises:
            UserError: If there is no such folder or repository, its file cannot be used, or the Hub
                cannot be reached.
        """
        from boxpromptiml.inference import hub  # noqa: PLC0415

        weights = hub.fetch(name, revision)
        return cls.load(weights, device, segmenter, copy_move=copy_move, flips=flips)

    def save_pretrained(
        self, folder: str | Path, evaluation: str | Path | None = None, licence: str | None = None
    ) -> None:
        """Write the weights (model.safetensors) and a model card (README.md) into a folder.

        Args:
            folder: Created if missing; existing files of these two names are replaced.
            evaluation: Folder written by `boxpromptiml evaluate`, for the scores on the card.
            licence: The Hub's identifier, such as `apache-2.0`; None: the card names none.

        Raises:
            UserError: If the network comes from an .onnx file, or the evaluation cannot be read.
        """
        from boxpromptiml.inference import hub  # noqa: PLC0415

        hub.save(self.network, self.spec, folder, evaluation, licence)

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = True,
        evaluation: str | Path | None = None,
        licence: str | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to the Hub in one commit.

        Args:
            repo_id: owner/name; created if missing.
            private: Visibility of a newly created repository; an existing one is not changed.
            evaluation: As in `save_pretrained`.
            licence: As in `save_pretrained`.

        Returns:
            URL of the commit.

        Raises:
            UserError: As `save_pretrained`, and if the Hub refuses or cannot be reached.
        """
        from boxpromptiml.inference import hub  # noqa: PLC0415

        return hub.push(self.network, self.spec, repo_id, private, evaluation, licence)


def _found_device(path: Path) -> str:
    if path.suffix.lower() == ".onnx":
        return "cpu"
    try:
        from boxpromptiml.io.weights import found_device  # noqa: PLC0415
    except ModuleNotFoundError:  # no PyTorch, which `open_network` reports
        return "cpu"
    return found_device("auto")


def _as_array(image: "Picture") -> ImageArray:
    """RGB (H, W, 3) uint8 of a picture in any accepted form."""
    if isinstance(image, (str, Path)):
        return read_image(image)[0]
    if isinstance(image, PillowImage):
        return np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray):  # a tensor, without the import of PyTorch
        tensor = np.asarray(image.detach().cpu())
        if tensor.ndim != 3 or tensor.shape[0] != 3:
            raise UserError(f"an image tensor must be (3, H, W) RGB, got {tensor.shape}")
        if np.issubdtype(tensor.dtype, np.floating):
            if not (tensor.min() >= 0 and tensor.max() <= 1):
                raise UserError("a float image tensor must be in [0, 1]")
            tensor = np.rint(tensor * 255).astype(np.uint8)
        image = np.ascontiguousarray(tensor.transpose(1, 2, 0))
    if image.dtype != "uint8" or image.ndim != 3 or image.shape[2] != 3:
        raise UserError(
            f"an image array must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
        )
    return image
