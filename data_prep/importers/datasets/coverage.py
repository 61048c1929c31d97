"""COVERAGE: copy-moves of objects beside similar genuine ones, N.tif and its forgery Nt.tif."""

from collections.abc import Iterator

from data_prep.importers.layout import DatasetLayout, RawItem, Tree

_CORRECTED = "a known error; github.com/SunnyHaze/IML-Dataset-Corrections has it right"
_BAD_SIZES = (41, 48, 55, 56, 57, 58, 59, 61, 95)


def _find(tree: Tree) -> Iterator[RawItem]:
    tampered = tree.by_key(r"image/(\d+)t\.tif")
    masks = tree.by_key(r"mask/(\d+)forged\.tif")
    for key, image, mask in tree.pair(tampered, masks):
        yield RawItem(f"{key}t", image, 1, mask, "copymove", f"coverage/{key}")
    for key, image in tree.by_key(r"image/(\d+)\.tif").items():
        yield RawItem(key, image, 0, group=f"coverage/{key}")


COVERAGE = DatasetLayout(
    name="coverage",
    layout="image/Nt.tif, mask/Nforged.tif, image/N.tif",
    polarity="white is manipulated, above 125",
    find=_find,
    expected={"manipulated": 100, "authentic": 100},
    mask_threshold=125,
    ignored=r"mask/\d+(?:copy|paste)\.tif",
    known=dict.fromkeys((f"{number}t" for number in _BAD_SIZES), _CORRECTED),
)
