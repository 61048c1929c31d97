"""Superpixels of scikit-image: regions without weights that cover every pixel.

SLIC: Achanta et al., TPAMI 2012. Felzenszwalb and Huttenlocher, IJCV 2004. The defaults are a
compromise, found on photographs of 256 x 384: many regions follow the border of a forgery better,
few pool more of the evidence of a coarse map.
"""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Annotated

from annotated_types import Ge, Gt, Le

from boxpromptiml import geometry
from boxpromptiml.io.strict_json import check_fields
from boxpromptiml.records import Description, ImageArray, RegionArray
from boxpromptiml.segmenters.labels import renumbered

Segments = Annotated[int, Ge(1), Le(100_000)]
Positive = Annotated[float, Gt(0), Le(1e9)]
Sigma = Annotated[float, Ge(0), Le(100)]  # pixels
MinSize = Annotated[int, Ge(1), Le(10**9)]  # pixels
MaxSide = Annotated[int, Ge(1), Le(4096)]  # pixels


@dataclass(frozen=True, slots=True)
class SlicSegmenter:
    """Compact regions of similar size and colour.

    Attributes:
        segments: Requested number of regions; textured images get fewer.
        compactness: Weight of distance against colour; higher gives squarer regions.
        sigma: Width of the Gaussian smoothing beforehand, in pixels. Without it, strong noise gives
            SLIC pieces too small to keep, which it merges into a few regions or a single one.
        max_side: Larger images are reduced to this many pixels on the longer side.

    Raises:
        UserError: If a setting has a wrong type or is outside its limits.
    """

    segments: Segments = 200
    compactness: Positive = 10.0
    sigma: Sigma = 1.0
    max_side: MaxSide = 512

    def __post_init__(self) -> None:
        check_fields(self, "slic")

    @property
    def settings(self) -> Description:
        """Settings, and the scikit-image release: regions may change between releases."""
        return _describe("slic", asdict(self))

    def regions(self, image: ImageArray) -> RegionArray:
        """(H, W) region numbers from 1 of an image (H, W, 3)."""
        from skimage.segmentation import slic  # noqa: PLC0415 - slow, and many maps need no regions

        found = slic(
            geometry.shrink(image, self.max_side),
            n_segments=self.segments,
            compactness=self.compactness,
            sigma=self.sigma,
            start_label=1,
            channel_axis=-1,
        )
        return geometry.nearest(renumbered(found), image.shape[:2])


@dataclass(frozen=True, slots=True)
class FelzenszwalbSegmenter:
    """Regions grown along a graph: large where the image is smooth, small where it is busy.

    Attributes:
        scale: Higher gives fewer, larger regions.
        sigma: Width of the Gaussian smoothing beforehand, in pixels.
        min_size: Smaller regions are merged, in pixels of the reduced image.
        max_side: Larger images are reduced to this many pixels on the longer side.

    Raises:
        UserError: If a setting has a wrong type or is outside its limits.
    """

    scale: Positive = 50.0
    sigma: Sigma = 0.8
    min_size: MinSize = 100
    max_side: MaxSide = 512

    def __post_init__(self) -> None:
        check_fields(self, "felzenszwalb")

    @property
    def settings(self) -> Description:
        """Settings, and the scikit-image release: regions may change between releases."""
        return _describe("felzenszwalb", asdict(self))

    def regions(self, image: ImageArray) -> RegionArray:
        """(H, W) region numbers from 1 of an image (H, W, 3)."""
        from skimage.segmentation import felzenszwalb  # noqa: PLC0415 - as above

        found = felzenszwalb(
            geometry.shrink(image, self.max_side),
            scale=self.scale,
            sigma=self.sigma,
            min_size=self.min_size,
            channel_axis=-1,
        )
        return geometry.nearest(renumbered(found + 1), image.shape[:2])


def _describe(name: str, settings: dict[str, float]) -> Description:
    versions = {"scikit-image": version("scikit-image")}
    return {"name": name, "weights_sha256": None, "settings": settings, "versions": versions}
