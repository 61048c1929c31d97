"""How forgeries look: the ranges that the forging functions draw from."""

from dataclasses import dataclass
from typing import Literal

from boxpromptiml.errors import UserError

Kind = Literal["splice", "copymove", "removal"]
KINDS: tuple[Kind, ...] = ("splice", "copymove", "removal")


@dataclass(frozen=True)
class ForgeryStyle:
    """Ranges of what a forger does to a region; every draw is uniform.

    Attributes:
        shares: How often a forgery is a splice, a copy-move, a removal; they sum to 1.
        splice_scale: Factor of a splice, relative to the sizes of host and donor.
        copy_scale: Factor of a copy-move.
        rotation: A pasted region is turned by up to so many degrees either way, at most 180.
        exposure: Half of the splices are made darker or brighter by up to this fraction.
        feather: Softness of a pasted edge in pixels, 0 is a sharp one; at most 16.
    """

    shares: tuple[float, float, float] = (0.60, 0.25, 0.15)
    splice_scale: tuple[float, float] = (0.6, 1.4)
    copy_scale: tuple[float, float] = (0.8, 1.2)
    rotation: float = 15.0
    exposure: float = 0.15
    feather: tuple[int, int] = (0, 2)

    def __post_init__(self) -> None:
        """Refuse what no forgery can be made with.

        Raises:
            UserError: Naming the field.
        """
        for field, right, need in (
            ("shares", min(self.shares) >= 0 and abs(sum(self.shares) - 1) < 1e-6, "sum to 1"),
            ("splice_scale", _range(self.splice_scale, 0.05, 20), "rise, within 0.05 to 20"),
            ("copy_scale", _range(self.copy_scale, 0.05, 20), "rise, within 0.05 to 20"),
            ("rotation", 0 <= self.rotation <= 180, "be 0 to 180"),
            ("exposure", 0 <= self.exposure < 1, "be 0 to 1"),
            ("feather", _range(self.feather, 0, 16), "rise, within 0 to 16"),
        ):
            if not right:
                raise UserError(f"style.{field} must {need}, got {getattr(self, field)}")


def _range(pair: tuple[float, float], least: float, most: float) -> bool:
    return least <= pair[0] <= pair[1] <= most


DEFAULT_STYLE = ForgeryStyle()
