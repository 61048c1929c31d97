"""The records that every part of the framework exchanges, and the legend of their shapes.

Shape legend: B batch, N boxes, H x W the stored image in pixels, S x S (or h x w) the network's
input. Images are RGB, channel last (H, W, 3) uint8 in [0, 255] on the disk side and channel first
(B, 3, h, w) float32 in [0, 1] on the tensor side. x runs right, y runs down. Names say the range:
`logits` real, `prob` in [0, 1], `mask` binary.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # torch takes seconds to import and the disk side needs none of it
    import torch

ImageArray = npt.NDArray[np.uint8]  # (H, W, 3) RGB
MaskArray = npt.NDArray[np.bool_]  # (H, W), True = manipulated
TrimapArray = npt.NDArray[np.uint8]  # (H, W), 0 authentic, 127 unsure, 255 manipulated
GreyArray = npt.NDArray[np.uint8]  # (H, W), an 8-bit probability map, 255 = 1
RegionArray = npt.NDArray[np.int32]  # (H, W), regions numbered from 1, 0 where there is none
ProbArray = npt.NDArray[np.float32]  # (H, W) in [0, 1]
BoxArray = npt.NDArray[np.float32]  # (N, 4) x0 y0 x1 y1, half-open pixels

AUTHENTIC, UNSURE, MANIPULATED = 0, 127, 255  # values of a trimap

Split = Literal["train", "val", "test"]
BoxOrigin = Literal["human", "cam", "mask"]
ModelType = Literal["vit_h", "vit_l", "vit_b", "vit_t"]  # of Segment Anything; t: MobileSAM


class Box(NamedTuple):
    """A rectangle in float pixels of the stored image, half-open: x1 and y1 lie outside."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a manifest. Paths are relative to the roots in the manifest's header.

    Attributes:
        id: Unique within the manifest; names output files.
        dataset: Name of the source dataset.
        split: Which part of an experiment the image belongs to.
        group: Siblings of one source image share a group and never straddle splits; the same
            group in two datasets means the same source.
        image: Path of the image, forward slashes, below the header's `image_root`.
        size: (H, W) of the stored pixels; EXIF orientation is never applied.
        label: 0 authentic, 1 manipulated, None unknown. Never derived from "no box".
        boxes: Coarse boxes around what looks manipulated; empty for authentic images, None when
            nobody has annotated the image.
        kind: Forgery kind (`splice`, `copymove`, `removal`) where known.
        mask: Ground-truth mask, same root as the image.
        mask_threshold: A mask value above this is manipulated; None for lossless {0,1} or {0,255}.
        pseudo_mask: Mask made of the teacher's proposals, below the header's `pseudo_root`.
        image_sha256: Hash of the image file, to detect a changed or damaged file.
        box_origin: Where the boxes come from: a person, a network trained on image labels (`cam`)
            or the ground-truth mask; None where it was not recorded.
        made_from: Ids, in their own manifests, of the images whose pixels or masks are in this
            synthetic one: its host, all donors, and whatever lent the outline of a region. Drop
            the image from training where one of them is held back. None where it is unknown.
    """

    id: str
    dataset: str
    split: Split
    group: str
    image: str
    size: tuple[int, int]
    label: int | None
    boxes: tuple[Box, ...] | None
    kind: str | None = None
    mask: str | None = None
    mask_threshold: int | None = None
    pseudo_mask: str | None = None
    image_sha256: str | None = None
    box_origin: BoxOrigin | None = None
    made_from: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A teacher's proposal for one box.

    Attributes:
        mask: (H, W) bool at the stored size.
        score: The teacher's own confidence in [0, 1].
        box: The box (4,) that prompted it.
        note: Why the mask is not the teacher's own (`degenerate: …`), else empty.
    """

    mask: MaskArray
    score: float
    box: Box
    note: str = ""


Supervised = Literal["mask", "pseudo", "box", "label", "authentic"]


class Batch(TypedDict):
    """A batch of a dataloader.

    `target`, `valid`, `weight` and `supervision` exist in training only; `regions` of a
    segmenter in evaluation only; `truth`, the ground truth, is None where it is unknown or not
    requested; `extent` is the (h, w) part of the canvas that the image fills, from the top left;
    `size` is the stored (H, W), to which a map is resized.
    """

    image: "torch.Tensor"  # (B, C, h, w) float32: RGB in [0, 1], then error levels in [-1, 1]
    target: NotRequired["torch.Tensor"]  # (B, 1, h, w) float32 in [0, 1]
    valid: NotRequired["torch.Tensor"]  # (B, 1, h, w) bool: counts in the loss
    weight: NotRequired["torch.Tensor"]  # (B,) float32 >= 0: how much the image counts in the loss
    supervision: NotRequired[list[Supervised]]  # what supervises each image
    lost: NotRequired[list[bool]]  # whether the image or its supervision could not be read
    label: "torch.Tensor"  # (B,) float32: 0 authentic, 1 manipulated, nan unknown
    id: list[str]
    extent: list[tuple[int, int]]
    size: list[tuple[int, int]]
    truth: "list[torch.Tensor | None]"  # B x (H, W) uint8 0 | 1, at the stored size
    regions: NotRequired["list[torch.Tensor]"]  # B x (H, W) int32, 0 = no region


class LocalizerOutput(NamedTuple):
    """What a network returns: a map and an image score, both before the sigmoid."""

    logits: "torch.Tensor"  # (B, 1, h, w)
    image_logit: "torch.Tensor"  # (B,)


Description = dict[str, Any]  # JSON-serialisable: name, weights SHA-256, settings


class Teacher(Protocol):
    """Turns boxes into masks."""

    @property
    def settings(self) -> Description:
        """Name, SHA-256 of the weights and every setting that changes a proposal."""
        ...

    def propose(self, image: ImageArray, boxes: BoxArray) -> Iterable[Proposal]:
        """One proposal for every box (N, 4) of an image (H, W, 3), in the order of the boxes.

        A teacher should yield them one by one: a mask of the size of the image for each of
        hundreds of boxes fills the memory.
        """
        ...


class Segmenter(Protocol):
    """Divides an image into regions."""

    @property
    def settings(self) -> Description:
        """Name, SHA-256 of the weights and every setting that changes a region."""
        ...

    def regions(self, image: ImageArray) -> RegionArray:
        """(H, W) region numbers, 0 where there is no region."""
        ...
