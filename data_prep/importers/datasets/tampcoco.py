"""tampCOCO of CAT-Net: splices and copy-moves of COCO photographs, about 200,000 per kind.

Names carry the two photographs: `98_000000418435.jpg_000000095611.jpg_RT9.6.jpg`. An image shares
its group with those of the same first photograph; splices of one second photograph may be in
several groups, because nearly everything would be one group otherwise.
"""

import re
from collections.abc import Iterator

from data_prep.importers.layout import DatasetLayout, RawItem, Tree

_SUBSETS = {"sp": "splice", "cm": "copymove", "bcm": "copymove", "bcmc": "copymove"}
_FIRST = re.compile(r"\d+_(\d+)")


def _find(tree: Tree) -> Iterator[RawItem]:
    masks = tree.by_key(r"(sp|cm|bcm)_masks/([^/]+\.png)")
    tampered = tree.by_key(rf"({'|'.join(_SUBSETS)})_images/([^/]+\.jpg)")
    for key, image, mask in tree.pair(tampered, masks, _mask_key):
        subset, _, name = key.partition("/")
        first = _FIRST.match(name)
        group = f"coco/{int(first[1])}" if first else None
        yield RawItem(key.removesuffix(".jpg"), image, 1, mask, _SUBSETS[subset.lower()], group)


def _mask_key(key: str) -> str:
    """Mask of an image: `.png` for `.jpg`; those of bcmc were saved again from bcm."""
    subset, _, name = key.partition("/")
    name = re.sub(r"(?:_aligned_Q\d+)?\.jpg", ".png", name)
    return f"{'bcm' if subset == 'bcmc' else subset}/{name}"


TAMPCOCO = DatasetLayout(
    name="tampcoco",
    layout="{sp,cm,bcm,bcmc}_images/*.jpg, {sp,cm,bcm}_masks/*.png",
    polarity="above 1 is manipulated",
    find=_find,
    mask_threshold=1,
)
