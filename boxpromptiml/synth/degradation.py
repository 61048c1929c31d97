"""What happens to an image after it was forged: JPEG, blur, noise, resizing, social networks.

Functions of images (H, W, 3) uint8 RGB, and `Degradation`, which names one of them.

No social network publishes its figures, all change them, and some choose them per image, so ours
are stand-ins of fixed strength. That networks resize and recompress is the model of Wu et al.,
"Robust Image Forgery Detection over Online Social Network Shared Images" (CVPR 2022), whose images
went through the real networks; use those where you have them. Sharpening and other filters are
left out, and an image is never enlarged. Sources of the figures:

- Facebook: longer side at most 2048, by its photo team (S. Odio, quoted at blog.patyuen.com, 2010);
  quality 85, as read off its files (abrokenmold.net, 2010; dsp.stackexchange.com/q/74275, 2021).
- Weibo: width at most 2048 and a quality near 80 on Photoshop's scale, by a photographer's uploads
  (qqhrsjcb.org.cn/pe/0_349702.html, 2016). Taking it for Pillow's 80 is our approximation.
- WeChat: shorter side at most 1440, by about 100 uploads to Moments (github.com/Curzibn/Luban,
  README of version 2). That source gives bytes, not a quality: 70 is our approximation, below the
  others because WeChat costs detectors most (arXiv 2511.20359 and Wu et al.).
- WhatsApp: longer side at most 1600 and a quality near 75, by a guide (shrinkto.com, 2026; two
  others say 70 to 80, and 50 to 60). Without its HD option.

Everything else is ours: chroma at half resolution (Pillow's default), area averages to shrink.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

import cv2
import numpy as np

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import generator
from boxpromptiml.io.images import decode_image, encode_jpeg
from boxpromptiml.io.trust import ImportPath, is_import_path, trusted_object
from boxpromptiml.records import ImageArray


def jpeg(image: ImageArray, quality: int) -> ImageArray:
    """Compress an image (H, W, 3) as JPEG and decode it.

    Args:
        image: RGB, uint8.
        quality: 1 to 100, on Pillow's scale.
    """
    return decode_image(encode_jpeg(image, quality), "recompressed.jpg")[0]


def blur(image: ImageArray, kernel: int) -> ImageArray:
    """Gaussian blur of an image (H, W, 3) uint8.

    `kernel` is the window in pixels, odd; OpenCV derives the standard deviation from it.
    """
    return np.asarray(cv2.GaussianBlur(image, (kernel, kernel), 0), dtype=np.uint8)


def noise(image: ImageArray, sigma: float, rng: np.random.Generator) -> ImageArray:
    """Add Gaussian noise to every value of an image (H, W, 3) uint8, then round and clip.

    `sigma` is the standard deviation in grey levels.
    """
    noisy = image + rng.normal(0, sigma, image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def rescale(image: ImageArray, factor: float) -> ImageArray:
    """Resize both sides of an image (H, W, 3) uint8 by `factor` > 0, at least to one pixel.

    Shrinking averages areas, enlarging is bilinear.
    """
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


PlatformName = Literal["facebook", "weibo", "wechat", "whatsapp"]
PLATFORMS: tuple[PlatformName, ...] = get_args(PlatformName)


@dataclass(frozen=True, slots=True)
class Platform:
    """The limits of a social network.

    Attributes:
        side: Which side of an image is limited.
        limit: The limit in pixels.
        quality: JPEG quality, on Pillow's scale.
    """

    side: Literal["longer", "shorter", "width"]
    limit: int
    quality: int


_KNOWN: dict[PlatformName, Platform] = {
    "facebook": Platform("longer", 2048, 85),
    "weibo": Platform("width", 2048, 80),
    "wechat": Platform("shorter", 1440, 70),
    "whatsapp": Platform("longer", 1600, 75),
}


def upload(image: ImageArray, platform: PlatformName) -> ImageArray:
    """An image (H, W, 3) as a social network shows it: shrunk to its limit, then recompressed.

    The limits of each are in `PLATFORMS`.
    """
    known = _KNOWN[platform]
    height, width = image.shape[:2]
    side = {"longer": max(height, width), "shorter": min(height, width), "width": width}[known.side]
    if side > known.limit:
        image = rescale(image, known.limit / side)
    return jpeg(image, known.quality)


DegradationName = Literal[
    "none", "jpeg", "blur", "noise", "rescale", "facebook", "weibo", "wechat", "whatsapp"
]
NAMES: tuple[DegradationName, ...] = get_args(DegradationName)


def _is_whole(strength: float, low: int, high: int) -> bool:
    return low <= strength <= high and strength == int(strength)


_LEVELS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "jpeg": ("a quality, whole, from 1 to 100", lambda level: _is_whole(level, 1, 100)),
    "blur": (
        "a window in pixels, odd, from 1 to 999",
        lambda level: _is_whole(level, 1, 999) and level % 2 == 1,
    ),
    "noise": ("a standard deviation of 0 to 255 grey levels", lambda level: 0 <= level <= 255),
    "rescale": ("a factor above 0, at most 4", lambda level: 0 < level <= 4),
}


@dataclass(frozen=True)
class Degradation:
    """What happened to an image after it was forged.

    IMDLBenCo differs in two points: it draws a JPEG quality from [q - 1, q] where ours is exact,
    and its noise level is a variance, so its 9 is our 3.

    Attributes:
        name: One change of every pixel, a social network, or the import path of a function of the
            image (H, W, 3) uint8 and the level that returns the degraded image (h, w, 3) uint8,
            such as mylab.sepia, if its code is trusted.
        level: Strength. jpeg: quality, 1 to 100. blur: window in pixels, odd. noise: standard
            deviation in grey levels. rescale: factor of both sides. None for all others, but for
            functions, which take any number or None.

    Raises:
        UserError: If the name is unknown, or the degradation cannot have this level.
    """

    name: DegradationName | ImportPath = "none"
    level: float | None = None

    def __post_init__(self) -> None:
        if is_import_path(self.name):
            return
        if self.name not in NAMES:
            raise UserError(f"degrade: {self.name!r} is none of {', '.join(NAMES)}")
        if self.name not in _LEVELS:
            if self.level is not None:
                raise UserError(f"degrade: {self.name} has no level, got {self.level:g}")
            return
        wanted, fits = _LEVELS[self.name]
        if self.level is None or not fits(self.level):
            got = "none" if self.level is None else f"{self.level:g}"
            raise UserError(f"degrade: the level of {self.name} is {wanted}; got {got}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `jpeg:70`, `noise:3.5` or `facebook`, as `str` writes them.

        Raises:
            UserError: If the text names no degradation, or one that cannot have this level.
        """
        name, colon, level = text.partition(":")
        try:
            number = float(level) if colon else None
        except ValueError:
            raise UserError(f"degrade: {text!r} has no number after the colon") from None
        return cls(cast("DegradationName", name), number)

    def __str__(self) -> str:
        """Name and level as on a command line.

        Example:
            >>> str(Degradation("jpeg", 70.0)), str(Degradation("weibo"))
            ('jpeg:70', 'weibo')
        """
        return self.name if self.level is None else f"{self.name}:{self.level:g}"

    def check(self) -> None:
        """Import a function that the name stands for, before anything is computed.

        Raises:
            UserError: If it is not there, or its code is not trusted.
        """
        if is_import_path(self.name):
            self._own()

    def _own(self) -> Callable[[ImageArray, float | None], ImageArray]:
        found: Callable[[ImageArray, float | None], ImageArray] = trusted_object(
            self.name, "the degradation"
        )
        return found

    def __call__(self, image: ImageArray, seed: int, sample_id: str) -> ImageArray:
        """Degrade an image.

        Noise is drawn from the seed and the sample's id alone: it is the same in any order and
        process, and has the same pattern at every level, so that levels can be compared.

        Args:
            image: (H, W, 3) uint8 RGB.
            seed: Of the noise, 0 or more.
            sample_id: Of the image.

        Returns:
            (h, w, 3), of another size after `rescale` and some social networks.
        """
        level = self.level or 0.0
        if self.name == "jpeg":
            return jpeg(image, int(level))
        if self.name == "blur":
            return blur(image, int(level))
        if self.name == "noise":
            return noise(image, level, generator(seed, sample_id))
        if self.name == "rescale":
            return rescale(image, level)
        if is_import_path(self.name):
            image = self._own()(image, self.level)
        for platform in PLATFORMS:
            if self.name == platform:
                return upload(image, platform)
        return image


def _grid(**levels: tuple[float, ...]) -> tuple[Degradation, ...]:
    names = (name for name in NAMES if name in levels)
    return tuple(Degradation(name, level) for name in names for level in levels[name])


_PLATFORMS = tuple(Degradation(platform) for platform in PLATFORMS)
_GRID = _grid(
    jpeg=(100, 90, 80, 70, 60, 50),
    blur=(3, 7, 11, 15, 19, 23),
    noise=(3, 7, 11, 15, 19, 23),
    rescale=(0.9, 0.78, 0.64, 0.5, 0.37, 0.25),
)
_QUICK = _grid(jpeg=(90, 70, 50), blur=(3, 11), noise=(3, 11), rescale=(0.78, 0.25))
_SETS = {
    "full": _GRID + _PLATFORMS,
    "quick": _QUICK + _PLATFORMS,
    "platforms": _PLATFORMS,
    **{name: tuple(d for d in _GRID if d.name == name) for name in _LEVELS},
}


def expand(words: list[str]) -> list[Degradation]:
    """Turn words of a command line into degradations: `none` first, then in the order of `full`.

    Args:
        words: `full`: the grid of IMDLBenCo (JPEG, blur, and its noise levels as standard
            deviations), rescaling factors that include the 0.78 and 0.25 of SPAN's tables, and the
            social networks. `quick`: a dozen of these. `jpeg`, `blur`, `noise`, `rescale` or
            `platforms`: that part of `full`. Or one by name and level: `jpeg:70`, `weibo`,
            `mylab.sepia:0.5`.

    Raises:
        UserError: For any other word, for a level that its degradation cannot have, and for a
            function whose code is not trusted.
    """
    found = {Degradation()}
    for word in words:
        found.update(_SETS.get(word) or (Degradation.parse(word),))
    for one in found:
        one.check()  # before anything is computed
    return sorted(found, key=severity)


def severity(degradation: Degradation) -> tuple[int, str, float]:
    """A key that sorts by name, in the order of `NAMES`, and then from mild to strong."""
    level = degradation.level or 0.0
    falling = degradation.name in ("jpeg", "rescale")
    name, names = degradation.name, list[str](NAMES)
    place = names.index(name) if name in names else len(names)
    return place, name, -level if falling else level
