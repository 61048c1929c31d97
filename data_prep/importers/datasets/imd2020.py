"""IMD2020, the real-life part from the Internet: a folder per original, with its forgeries."""

from collections.abc import Iterator

from data_prep.importers.layout import DatasetLayout, RawItem, Tree
from data_prep.importers.raw import IMAGE

_CORRECTED = "a known error; github.com/SunnyHaze/IML-Dataset-Corrections has it right"


def _find(tree: Tree) -> Iterator[RawItem]:
    masks = tree.by_key(r"([^/]+)/([^/]+)_mask\.png")
    originals = tree.by_key(rf"([^/]+)/([^/]+_orig){IMAGE}")
    tampered = tree.by_key(rf"([^/]+)/((?![^/]+_(?:mask|orig)\.)[^/]+){IMAGE}")
    for key, image, mask in tree.pair(tampered, masks):
        yield RawItem(key, image, 1, mask, group=f"imd2020/{key.partition('/')[0]}")
    for key, image in originals.items():
        yield RawItem(key, image, 0, group=f"imd2020/{key.partition('/')[0]}")


IMD2020 = DatasetLayout(
    name="imd2020",
    layout="<id>/<id>_orig.jpg, <id>/<name>_0.{jpg,png}, <id>/<name>_0_mask.png",
    polarity="anything but black is manipulated",
    find=_find,
    expected={"manipulated": 2010, "authentic": 414},
    mask_threshold=0,
    known={"z14/00030_fake": _CORRECTED},
)
