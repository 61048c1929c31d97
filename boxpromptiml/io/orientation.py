"""EXIF orientation: between the pixels that a file stores and the upright picture that people see.

Orientations are those of EXIF tag 274, 1 to 8. Above 4 the stored rows are the columns of the
upright picture. Sizes are (H, W), boxes half-open float pixels.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from boxpromptiml.records import Box

T = TypeVar("T", bound=np.generic)

_MIRRORED_IN_X = (2, 3, 7, 8)  # stored columns run against the upright direction
_MIRRORED_IN_Y = (3, 4, 6, 7)
_FIRST_TRANSPOSED = 5


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(H, W) of the upright picture of stored pixels of `size` (H, W).

    `orientation` is the EXIF value, 1 to 8. The function is its own inverse.
    """
    return (size[1], size[0]) if orientation >= _FIRST_TRANSPOSED else size


def upright_image(stored: npt.NDArray[T], orientation: int) -> npt.NDArray[T]:
    """The upright picture of stored pixels (H, W) or (H, W, C), as a view.

    `orientation` is the EXIF value, 1 to 8.
    """
    columns = slice(None, None, -1 if orientation in _MIRRORED_IN_X else 1)
    rows = slice(None, None, -1 if orientation in _MIRRORED_IN_Y else 1)
    seen = stored[rows, columns]
    return seen.swapaxes(0, 1) if orientation >= _FIRST_TRANSPOSED else seen


def upright_box(stored: Box, size: tuple[int, int], orientation: int) -> Box:
    """Where a box of stored pixels lies in the upright picture.

    Args:
        stored: The box.
        size: (H, W) of the stored pixels.
        orientation: As in the module.
    """
    return _transposed(_mirrored(stored, size, orientation), orientation)


def stored_box(upright: Box, size: tuple[int, int], orientation: int) -> Box:
    """Where a box of the upright picture lies in the stored pixels.

    Args:
        upright: The box.
        size: (H, W) of the stored pixels.
        orientation: As in the module.

    Example:
        >>> stored_box(Box(10, 20, 30, 50), (200, 100), 6)  # shown turned clockwise, 200 wide
        Box(x0=20, y0=170, x1=50, y1=190)
    """
    return _mirrored(_transposed(upright, orientation), size, orientation)


def _transposed(box: Box, orientation: int) -> Box:
    return Box(box.y0, box.x0, box.y1, box.x1) if orientation >= _FIRST_TRANSPOSED else box


def _mirrored(box: Box, size: tuple[int, int], orientation: int) -> Box:
    height, width = size
    x0, y0, x1, y1 = box
    if orientation in _MIRRORED_IN_X:
        x0, x1 = width - x1, width - x0
    if orientation in _MIRRORED_IN_Y:
        y0, y1 = height - y1, height - y0
    return Box(x0, y0, x1, y1)
