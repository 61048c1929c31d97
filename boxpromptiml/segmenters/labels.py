"""Label maps (H, W) int32: 0 no region, regions numbered from 1 without gaps."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from boxpromptiml.records import MaskArray, RegionArray


def components(classes: npt.NDArray[np.integer], min_fraction: float) -> RegionArray:
    """Label the connected parts (8 neighbours) of equal class.

    Args:
        classes: (H, W) class numbers, 0 or more.
        min_fraction: Parts below this fraction of the image are no region.
    """
    from skimage.measure import label  # noqa: PLC0415 - slow, and superpixels need none

    numbers = classes.astype(np.int32)  # of bool, scikit-image takes False as background
    labels = label(numbers, background=-1, connectivity=2)  # type: ignore[no-untyped-call]
    areas = np.bincount(labels.ravel())
    return renumbered(np.where(areas[labels] < min_fraction * labels.size, 0, labels))


def painted(masks: Iterable[MaskArray], size: tuple[int, int]) -> RegionArray:
    """One label map of `size` (H, W) from masks that may overlap; later masks cover earlier ones.

    Masks that are covered completely get no number.
    """
    labels = np.zeros(size, dtype=np.int32)
    for number, mask in enumerate(masks, start=1):
        labels[mask] = number
    return renumbered(labels)


def renumbered(labels: npt.NDArray[np.integer]) -> RegionArray:
    """Regions (H, W), 0 for none, numbered anew from 1 without gaps, in the old order."""
    used = np.bincount(labels.ravel(), minlength=1) > 0
    used[0] = False
    dense: RegionArray = (np.cumsum(used, dtype=np.int32) * used)[labels]
    return dense
