"""What varied forgeries differ in: the settings of the varied recipe, with their sources."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from boxpromptiml.errors import UserError

Chance = tuple[float, float, float]  # probability, lowest and highest strength

_FRACTIONS = frozenset(
    {"kinds", "regions", "splice_from", "copy_from", "removal_from", "removal_by", "host_saves",
     "final_saves"}
)  # fmt: skip
_LIMITS: dict[str, tuple[float, float]] = {  # of a strength
    "crop": (0.3, 1),
    "rescale": (0.25, 4),
    "scale": (0.1, 8),
    "rotation": (0, 180),
    "match": (0, 1),
    "exposure": (0, 0.9),
    "feather": (1, 16),
    "border_blur": (0.2, 8),
    "border_sharpen": (0, 4),
    "region_blur": (0.2, 8),
    "region_noise": (0, 32),
    "near": (0.01, 1),
    "resize": (0.25, 4),
    "blur": (0.2, 8),
    "gamma": (0.3, 3),
    "sharpen": (0, 4),
}


@dataclass(frozen=True)
class Variety:
    """Ranges of the varied recipe. The published mixtures name their operations, few their numbers.

    Three numbers are a chance: a probability, and the range that the strength is then drawn from,
    uniformly. Fractions sum to 1. Values without a source are ours.

    Attributes:
        sides: Range of the longer side of an image in pixels. Smaller photographs keep their size.
        crop: Chance that a host is cropped; strength: the fraction of each side that is kept.
        rescale: Chance that a host is resized before it is forged; strength: the factor.
        host_saves: Fractions of hosts that are saved as JPEG not at all, once, and twice before
            they are forged; the second time on a shifted grid for half of them (aligned and
            non-aligned double compression: Bianchi and Piva, IEEE TIFS 2012).
        host_quality: Range of JPEG qualities of the host (CAT-Net, arXiv 2108.12947, recompresses
            its synthetic forgeries at 60 to 100).
        kinds: Fractions of splices, copy-moves and removals (PSCC-Net, arXiv 2103.10596, trains on
            all of these, in equal parts with authentic images).
        regions: Fractions of splices with one, two and three regions, each of its own donor (MISD:
            Kadam, Ahirrao and Kotecha 2021, where the mean is 2.5).
        area: Range of the fraction of the image that a forgery covers.
        splice_from: Fractions of the regions of splices that are an object cut out along a given
            mask, superpixels of a photograph, or a circle, rectangle or triangle (CASIA v1: Dong,
            Wang and Tan 2013).
        copy_from: The same for copy-moves; the outline of a given mask is laid on the host.
        removal_from: The same for removals.
        region_saved: Chance that a region's photograph is saved as JPEG before the region is cut
            from it; strength: the quality. Its grid differs from the host's in 63 of 64 places.
        unaltered: Fraction of pasted regions that are neither scaled nor rotated nor flipped, so
            that they keep grid and noise.
        scale: Chance that a pasted region is scaled; strength: the factor (copy-moves: BusterNet,
            Wu et al., ECCV 2018, scales and rotates them).
        rotation: Chance that it is rotated, either way; strength: degrees.
        match: Chance that its colours are moved to those of its new surroundings, by mean and
            deviation in Lab (Reinhard et al., IEEE CG&A 2001); strength: how far, 1 is fully.
        exposure: Chance that it is made darker or brighter, after that; strength: the fraction.
        feather: Chance of a soft edge; strength: pixels (alpha matting in DEFACTO, Mahfoudi et al.
            2019).
        border_blur: Chance that the border is blurred, the image on both sides of it; strength:
            deviation in pixels (the blurred contours of CASIA, Dong et al. 2013).
        border_sharpen: Chance that the border is sharpened; strength: how much of the detail is
            added.
        region_blur: Chance that a region is blurred; strength: deviation in pixels.
        region_noise: Chance that noise is added to a region; strength: deviation in grey levels
            (noise inconsistency: Mahdian and Saic 2009).
        near: Chance that a copy is moved by less than its own extent; strength: the distance as a
            fraction of it. Other copies may lie anywhere.
        alike: Fraction of copies of simple shapes that are pasted where the image looks most like
            them, that is, within a texture (`_C_`, `_R_` and `_T_` of CASIA v1).
        removal_by: Fractions of removals by Telea's method (2004), by Navier-Stokes (Bertalmio,
            Bertozzi and Sapiro 2001), by a patch whose surroundings look most alike (a whole-region
            form of exemplar-based filling, Criminisi, Perez and Toyama 2004), and by a blurred fill
            with the surroundings' noise.
        resize: Chance that the whole image is resized after the forgery; strength: the factor.
            This and the next three hit authentic images alike (TruFor, arXiv 2212.10957, augments
            by resizing and compression; MVSS-Net, arXiv 2104.06832, by blur and compression).
        blur: Chance of a blur of the whole image; strength: deviation in pixels.
        gamma: Chance of a gamma curve; strength: the exponent.
        sharpen: Chance of sharpening; strength: how much of the detail is added.
        final_saves: Fractions of images that are saved without loss (PNG), as JPEG once, and twice;
            the second time on a shifted grid for half of them.
        quality: Range of JPEG qualities of the saved image.

    Raises:
        UserError: If a field is out of range; the message names it.
    """

    sides: tuple[int, int] = (256, 1100)
    crop: Chance = (0.4, 0.65, 1.0)
    rescale: Chance = (0.3, 0.6, 1.4)
    host_saves: tuple[float, float, float] = (0.2, 0.55, 0.25)
    host_quality: tuple[int, int] = (60, 98)
    kinds: tuple[float, float, float] = (0.5, 0.3, 0.2)
    regions: tuple[float, float, float] = (0.6, 0.25, 0.15)
    area: tuple[float, float] = (0.005, 0.5)
    splice_from: tuple[float, float, float] = (0.6, 0.3, 0.1)
    copy_from: tuple[float, float, float] = (0.15, 0.5, 0.35)
    removal_from: tuple[float, float, float] = (0.25, 0.6, 0.15)
    region_saved: Chance = (0.6, 50, 98)
    unaltered: float = 0.3
    scale: Chance = (0.7, 0.5, 1.8)
    rotation: Chance = (0.5, 0, 45)
    match: Chance = (0.5, 0.3, 1.0)
    exposure: Chance = (0.2, 0.05, 0.25)
    feather: Chance = (0.6, 1, 5)
    border_blur: Chance = (0.2, 0.6, 2.0)
    border_sharpen: Chance = (0.1, 0.3, 1.2)
    region_blur: Chance = (0.15, 0.4, 1.5)
    region_noise: Chance = (0.15, 1, 6)
    near: Chance = (0.4, 0.1, 0.9)
    alike: float = 0.7
    removal_by: tuple[float, float, float, float] = (0.25, 0.2, 0.4, 0.15)
    resize: Chance = (0.2, 0.6, 1.3)
    blur: Chance = (0.1, 0.3, 0.8)
    gamma: Chance = (0.2, 0.8, 1.25)
    sharpen: Chance = (0.15, 0.2, 0.8)
    final_saves: tuple[float, float, float] = (0.1, 0.7, 0.2)
    quality: tuple[int, int] = (60, 98)

    def __post_init__(self) -> None:
        for field in fields(self):
            problem = _problem(field.name, getattr(self, field.name))
            if problem:
                got = getattr(self, field.name)
                raise UserError(f"varied.{field.name} must {problem}, got {got}")


def _problem(name: str, value: Any) -> str | None:
    """What is wrong with the value of a field; None if it is sound."""
    if name in _FRACTIONS:
        sound = min(value) >= 0 and abs(sum(value) - 1) < 1e-6
        return None if sound else "hold fractions that sum to 1"
    if isinstance(value, int | float):
        return None if 0 <= value <= 1 else "be 0 to 1"
    low, high = _LIMITS.get(name, {"sides": (128, 8192), "area": (0.0005, 0.9)}.get(name, (1, 100)))
    if len(value) == 3 and not 0 <= value[0] <= 1:
        return "begin with a probability"
    sound = low <= value[-2] <= value[-1] <= high
    return None if sound else f"rise, within {low:g} to {high:g}"


def drawn(chance: Chance, rng: np.random.Generator) -> float | None:
    """Draw whether a change happens and how strong it is; None if it does not happen."""
    happens, strength = rng.random() < chance[0], float(rng.uniform(*chance[1:]))
    return strength if happens else None


DEFAULT_VARIETY = Variety()
