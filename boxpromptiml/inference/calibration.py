"""What a localizer's file says about its probabilities: calibration and false-alarm rates."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le, MaxLen
from pydantic import ConfigDict
from pydantic_core import to_jsonable_python

from boxpromptiml.errors import UserError
from boxpromptiml.io.strict_json import check_fields
from boxpromptiml.models.configs import STRICT
from boxpromptiml.models.inputs import FloatArray

Threshold = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1), Le(2**53)]
_Fpr = Annotated[float, Gt(0), Le(1)]
_Ece = Annotated[float, Ge(0), Le(1)]
# Pairs of a false-alarm rate and its threshold; rates rise, thresholds do not.
_Table = Annotated[tuple[tuple[_Fpr, Threshold], ...], MaxLen(64)]


@dataclass(frozen=True)
class Calibration:
    """Measured on validation images by `boxpromptiml calibrate`, and stored with the weights.

    A false-alarm rate (FPR) is that of authentic images: the mean fraction of their pixels, or the
    fraction of the images, above a threshold.

    Attributes:
        temperature: The image probability is sigmoid(image logit / temperature + bias).
        bias: See above; 0 for plain temperature scaling.
        images: Number of validation images.
        authentic: How many of them are authentic.
        pixels: Number of the authentic images' pixels.
        pixel_thresholds: Pairs (FPR, threshold of pixel probabilities), by rising FPR.
        image_thresholds: The same of calibrated image probabilities.
        ece: Expected calibration error of the image probability on images held back from the fit;
            before, it was `ece_before`.
        ece_before: See above.
        copy_weight: Added to the calibrated image logit of an image with copied regions, on maps
            with which everything here was then measured; None if it was measured without them.

    Raises:
        UserError: If a value has a wrong type or is outside its limits, or the thresholds are not
            in order.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    temperature: Annotated[float, Ge(1e-3), Le(1e3)]
    bias: Annotated[float, Ge(-1e3), Le(1e3)]
    images: Count
    authentic: Count
    pixels: Count
    pixel_thresholds: _Table
    image_thresholds: _Table
    ece: _Ece
    ece_before: _Ece
    copy_weight: Annotated[float, Ge(-1e3), Le(1e3)] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "calibration")
        if self.authentic > self.images:
            raise UserError("calibration.authentic: more than all images")
        for name in ("pixel_thresholds", "image_thresholds"):
            steps = pairwise(getattr(self, name))
            if not all(fpr < above and t >= lower for (fpr, t), (above, lower) in steps):
                raise UserError(f"calibration.{name}: rates must rise and thresholds must not")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without a `copy_weight` that is None."""
        values: dict[str, Any] = to_jsonable_python(self)
        return {name: value for name, value in values.items() if value is not None}

    def image_logits(self, logits: FloatArray) -> FloatArray:
        """The calibrated image logits (B,) of a network's, for images without copies."""
        with np.errstate(over="ignore"):
            return logits / np.float32(self.temperature) + np.float32(self.bias)

    def pixel_threshold(self, fpr: float) -> float:
        """Threshold that the fraction `fpr` of authentic images' pixels is above.

        Between the stored rates it is interpolated, linear in the logarithm of the rate.

        Raises:
            UserError: If the rate is outside the stored ones, or fewer pixels were measured than
                it takes.
        """
        kind = f"{self.pixels} pixels of {self.authentic} authentic images"
        return _threshold(self.pixel_thresholds, fpr, self.pixels, kind)

    def image_threshold(self, fpr: float) -> float:
        """Threshold that the fraction `fpr` of authentic images' probabilities is above.

        Raises:
            UserError: As `pixel_threshold`, with images in place of pixels.
        """
        kind = f"{self.authentic} authentic images"
        return _threshold(self.image_thresholds, fpr, self.authentic, kind)

    def pixel_fpr(self, threshold: float) -> float | None:
        """The inverse of `pixel_threshold`; None outside the stored thresholds."""
        rates, thresholds = _columns(self.pixel_thresholds)
        if not thresholds or not thresholds[-1] <= threshold <= thresholds[0]:
            return None
        return float(np.exp(np.interp(threshold, thresholds[::-1], np.log(rates[::-1]))))


def _threshold(table: Sequence[tuple[float, float]], fpr: float, count: int, kind: str) -> float:
    rates, thresholds = _columns(table)
    if not rates or not rates[0] <= fpr <= rates[-1] or fpr * count < 1:
        known = f"from {rates[0]:g} to {rates[-1]:g}" if rates else "none"
        raise UserError(
            f"a false-alarm rate of {fpr:g} is not known: measured on {kind} were {known}"
        )
    return float(np.interp(np.log(fpr), np.log(rates), thresholds))


def _columns(table: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [fpr for fpr, _ in table], [threshold for _, threshold in table]
