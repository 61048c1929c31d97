"""Weakly supervised image manipulation localization: from coarse boxes to a localizer.

Example:
    from boxpromptiml import Localizer
    prob = Localizer.load("student.ckpt")("photo.jpg")  # (H, W) float32 at the stored size
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxpromptiml.inference.localizer import Localizer

__all__ = ["Localizer"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use: `boxpromptiml --help` needs no torch."""
    if name == "Localizer":
        from boxpromptiml.inference.localizer import Localizer  # noqa: PLC0415

        return Localizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
