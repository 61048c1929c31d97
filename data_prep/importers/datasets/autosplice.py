"""AutoSplice: parts of news photographs repainted by DALL-E 2, at three JPEG qualities.

Several forgeries of a photograph share its mask.
"""

from collections.abc import Iterator

from data_prep.importers.layout import DatasetLayout, RawItem, Tree
from data_prep.importers.raw import IMAGE


def _find(tree: Tree) -> Iterator[RawItem]:
    tampered = tree.by_key(rf"(Forged_JPEG\d+)/([^/]+){IMAGE}")
    masks = tree.by_key(r"Mask/([^/]+)_mask\.png")
    for key, image, mask in tree.pair(tampered, masks, _photograph):
        yield RawItem(key, image, 1, mask, group=f"autosplice/{_photograph(key)}")
    for key, image in tree.by_key(rf"Authentic/([^/]+){IMAGE}").items():
        yield RawItem(f"Authentic/{key}", image, 0, group=f"autosplice/{_photograph(key)}")


def _photograph(key: str) -> str:
    return key.rpartition("/")[2].partition("_")[0]


AUTOSPLICE = DatasetLayout(
    name="autosplice",
    layout="Forged_JPEG{100,90,75}/<photo>_*.jpg, Mask/<photo>_mask.png, Authentic/<photo>*.jpg",
    polarity="anything but black is manipulated",
    find=_find,
    expected={"manipulated": 3 * 3621, "authentic": 2273},
    mask_threshold=0,
)
