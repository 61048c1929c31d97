"""The plan of all forgeries, decided from the seed before any is made."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from boxpromptiml.errors import UserError
from boxpromptiml.manifests.manifest import safe_name
from boxpromptiml.records import Split
from boxpromptiml.synth.forge import KINDS, ForgeryStyle
from boxpromptiml.synth.variety import Variety
from data_prep.forgery.photographs import Photo
from data_prep.forgery.plain import ForgerySpec, JpegHistory
from data_prep.forgery.varied import ORIGINS, RegionSpec, VariedSpec

QualityRange = int | tuple[int, int]
DEFAULT_QUALITY: QualityRange = (75, 98)
MIN_DONORS = 64  # photographs that the first forgeries choose their donors from, at least


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Options of a job by any recipe, independent of the photographs; `forgeries` explains them.

    Raises:
        UserError: If an option has an impossible value; the message names it.
    """

    count: int
    seed: int
    name: str
    split: Split

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"--count must be 1 or more, got {self.count}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed must be in [0, 2**32), got {self.seed}")
        if safe_name(self.name) != self.name:
            raise UserError(f"--name {self.name!r} must be a plain file name")


@dataclass(frozen=True, slots=True)
class ForgerySettings(JobSettings):
    """Options of the plain recipe, checked like those of `JobSettings`."""

    host_quality: QualityRange | None
    region_quality: QualityRange | None
    quality: QualityRange
    style: ForgeryStyle
    max_side: int | None

    def __post_init__(self) -> None:
        JobSettings.__post_init__(self)  # `super()` does not work in a dataclass with slots
        for field in ("host_quality", "region_quality", "quality"):
            value = getattr(self, field)
            low, high = value if isinstance(value, tuple) else (value, value)
            if value is not None and not 1 <= low <= high <= 100:
                raise UserError(f"--{field} must be 1 to 100, or a rising range, got {value}")


@dataclass(frozen=True, slots=True)
class VariedSettings(JobSettings):
    """Options of the varied recipe, checked like those of `JobSettings`."""

    varied: Variety


def plan(settings: ForgerySettings, pool: Sequence[Photo], authentic: int) -> list[ForgerySpec]:
    """Decide what to forge, in order. A larger count leaves the first forgeries as they are.

    Every photograph is host in turn. Donors of a coloured host have colour, where there are any.

    Args:
        settings: What is asked for.
        pool: Photographs that can be used, at least two if there are splices.
        authentic: Number of hosts, from the first, that are saved untouched too.
    """
    grey = np.array([photo.grey for photo in pool])
    specs = []
    for number in range(settings.count):
        rng = np.random.default_rng([settings.seed, number])
        at = number % len(pool)
        kind = KINDS[int(rng.choice(len(KINDS), p=settings.style.kind_fractions))]
        donor = _donor(grey, at, number, rng)
        history = JpegHistory(
            host=_drawn(settings.host_quality, rng) if settings.host_quality else None,
            region=_drawn(settings.region_quality, rng) if settings.region_quality else None,
            final=_drawn(settings.quality, rng),
        )
        specs.append(
            ForgerySpec(
                id=f"{settings.name}_{settings.split}_{number:06d}",
                seed=(settings.seed, number, 1),
                kind=kind,
                host=pool[at],
                donor=pool[donor] if kind == "splice" else None,
                jpeg=history,
                style=settings.style,
                max_side=settings.max_side,
                authentic=number < authentic,
            )
        )
    return specs


def plan_varied(
    settings: VariedSettings, pool: Sequence[Photo], objects: Sequence[Photo], authentic: int
) -> list[VariedSpec]:
    """Decide what to forge by the varied recipe, in order.

    A larger count leaves the first forgeries as they are, given the same photographs and objects.

    Args:
        settings: What is asked for.
        pool: Photographs that can be used, at least two if there are splices.
        objects: Forged images, each with the outlines of objects.
        authentic: Number of hosts, from the first, that are saved untouched too.
    """
    variety = settings.varied
    grey = np.array([photo.grey for photo in pool])
    origins = {
        "splice": variety.splice_from,
        "copymove": variety.copy_from,
        "removal": variety.removal_from,
    }
    specs = []
    for number in range(settings.count):
        rng = np.random.default_rng([settings.seed, number])
        at = number % len(pool)
        kind = KINDS[int(rng.choice(len(KINDS), p=variety.kinds))]
        several = 1 + int(rng.choice(len(variety.regions), p=variety.regions))
        regions = []
        for _ in range(several if kind == "splice" else 1):
            origin = ORIGINS[int(rng.choice(len(ORIGINS), p=origins[kind]))]
            outline = None
            if origin == "object" and objects:
                known = min(len(objects), max(number + 1, MIN_DONORS))
                outline = objects[int(rng.integers(known))]
            elif origin == "object":
                origin = "superpixels"
            donor = outline or pool[_donor(grey, at, number, rng)]
            regions.append(RegionSpec(origin, donor if kind == "splice" else None, outline))
        specs.append(
            VariedSpec(
                id=f"{settings.name}_{settings.split}_{number:06d}",
                seed=(settings.seed, number, 1),
                kind=kind,
                host=pool[at],
                regions=tuple(regions),
                saves=int(rng.choice(3, p=variety.final_saves)),
                variety=variety,
                authentic=number < authentic,
            )
        )
    return specs


def _donor(grey: npt.NDArray[np.bool_], at: int, number: int, rng: np.random.Generator) -> int:
    """The place of a donor for the host at `at`: another photograph, where there is one.

    Args:
        grey: (N,), which photographs have no colour.
        at: Place of the host.
        number: Of the forgery; the first ones choose among the first photographs.
        rng: Chooses.
    """
    others = np.delete(np.arange(min(len(grey), max(number + 1, MIN_DONORS))), at)
    alike = others[~grey[others] | grey[at]]  # no grey object in a coloured photograph
    return int(rng.choice(alike if len(alike) else others)) if len(others) else at


def _drawn(quality: QualityRange, rng: np.random.Generator) -> int:
    low, high = quality if isinstance(quality, tuple) else (quality, quality)
    return int(rng.integers(low, high + 1))
