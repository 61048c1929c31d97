"""Korus' realistic tampering: four cameras, masks of three levels.

White is the edit, grey is collateral change around it. Those pixels are no longer the camera's
either, so both count, as in PhotoHolmes; `--mask_threshold 200` would count the white alone.
"""

from collections.abc import Iterator

from data_prep.importers.layout import DatasetLayout, RawItem, Tree


def _find(tree: Tree) -> Iterator[RawItem]:
    masks = tree.by_key(r"([^/]+)/ground-truth/([^/]+)\.png")
    for key, image, mask in tree.pair(
        tree.by_key(r"([^/]+)/tampered-realistic/([^/]+)\.tif"), masks
    ):
        yield RawItem(_key(key, "tampered-realistic"), image, 1, mask, group=f"korus/{key}")
    for key, image in tree.by_key(r"([^/]+)/pristine/([^/]+)\.tif").items():
        yield RawItem(_key(key, "pristine"), image, 0, group=f"korus/{key}")


def _key(camera_and_stem: str, folder: str) -> str:
    camera, _, stem = camera_and_stem.partition("/")
    return f"{camera}/{folder}/{stem}"


KORUS = DatasetLayout(
    name="korus",
    layout="<camera>/{tampered-realistic,pristine}/*.TIF, <camera>/ground-truth/*.PNG",
    polarity="white (edit) and grey (collateral) are manipulated, above 10",
    find=_find,
    expected={"manipulated": 220, "authentic": 220},
    mask_threshold=10,
)
