"""Cutting a region out of an image, and pasting it into another."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.synth.regions import largest_part

Parameters = dict[str, float | int | str]  # of one forgery, by name


class Alteration(NamedTuple):
    """How a region is changed when it is cut out.

    Attributes:
        scale: Factor of both sides.
        degrees: Rotation.
        flip: -1 mirrors it left to right, 1 does not.
        feather: Softness of its edge in pixels, 0 is sharp.
    """

    scale: float
    degrees: float
    flip: float
    feather: int


class Patch(NamedTuple):
    """A cut-out.

    Attributes:
        colour: (h, w, 3) float32 in [0, 255].
        alpha: (h, w) float32 in [0, 1].
        parameters: How it was altered (rotation, scale, ...), for the provenance file.
    """

    colour: npt.NDArray[np.float32]
    alpha: npt.NDArray[np.float32]
    parameters: Parameters


def cut(
    image: ImageArray, region: MaskArray, how: Alteration, limit: tuple[int, int], reach: int
) -> Patch:
    """Cut a region out, rotate it, maybe flip it, scale it to at most `limit` (H, W), soften it.

    Without rotation and scaling the pixels are copied as they are.

    Args:
        image: (H, W, 3) RGB.
        region: (H, W), not empty.
        how: How the region is changed.
        limit: (H, W) that the patch has to fit into.
        reach: Margin of the patch around the region in pixels, `how.feather` or more.
    """
    y, x = np.nonzero(region)
    angle = np.deg2rad(how.degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([how.flip, 1.0])
    centres = turn @ np.stack([x, y])
    low, extent = centres.min(axis=1) - 0.5, np.ptp(centres, axis=1) + 1
    margin = 2 * reach
    scale = min(how.scale, *((np.array(limit[::-1]) - margin) / extent))
    width, height = (int(side) for side in np.ceil(extent * scale - 1e-6) + margin)
    shift = reach - 0.5 - low * scale  # the region's low edge goes to the inner edge of the margin
    matrix = np.column_stack([turn * scale, shift])
    frame = (width, height)
    colour = cv2.warpAffine(image, matrix, frame, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(region.astype(np.float32), matrix, frame)
    inside = alpha > min(0.5, alpha.max() / 2)  # the smaller: a pixel or two may not reach 0.5
    parameters: Parameters = {
        "scale": scale,
        "degrees": how.degrees,
        "flipped": int(how.flip < 0),
        "feather": how.feather,
    }
    return Patch(colour.astype(np.float32), soft_edge(inside, how.feather), parameters)


def soft_edge(region: MaskArray, feather: int) -> npt.NDArray[np.float32]:
    """Alpha of a region's largest part, softened over `feather` pixels.

    Returns:
        (H, W) in [0, 1]; 0 farther than `feather` pixels from where it is above 0.5.
    """
    hard = largest_part(region).astype(np.float32)
    window = (2 * feather + 1, 2 * feather + 1)
    soft = cv2.GaussianBlur(hard, window, 0)
    core = largest_part(soft > 0.5)
    if not core.any():  # too small a region for this feather
        return hard
    near = cv2.dilate(core.astype(np.float32), np.ones(window, dtype=np.uint8))
    return np.asarray(soft * near, dtype=np.float32)


def paste(host: ImageArray, patch: Patch, corner: tuple[int, int]) -> tuple[ImageArray, MaskArray]:
    """Blend a patch into a host with its top left corner at `corner` (row, column).

    Returns:
        The image (H, W, 3), and the mask (H, W) of the pixels that are the patch's by more than
        half.
    """
    row, column = corner
    height, width = patch.alpha.shape
    window = np.s_[row : row + height, column : column + width]
    image, mask = host.copy(), np.zeros(host.shape[:2], dtype=bool)
    alpha = patch.alpha[..., None]
    image[window] = np.rint(alpha * patch.colour + (1 - alpha) * host[window]).astype(np.uint8)
    mask[window] = patch.alpha > 0.5
    return image, mask
