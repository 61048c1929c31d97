"""In the Wild (ITW): forgeries from the Internet, no authentic images."""

from collections.abc import Iterator

from data_prep.importers.layout import DatasetLayout, RawItem, Tree
from data_prep.importers.raw import IMAGE


def _find(tree: Tree) -> Iterator[RawItem]:
    tampered = tree.by_key(rf"images/([^/]+){IMAGE}")
    for key, image, mask in tree.pair(tampered, tree.by_key(r"masks/([^/]+)\.png")):
        yield RawItem(key, image, 1, mask)


IN_THE_WILD = DatasetLayout(
    name="in_the_wild",
    layout="label_in_wild/images/*.jpg, label_in_wild/masks/*.png",
    polarity="anything but black is manipulated",
    find=_find,
    expected={"manipulated": 201},
    mask_threshold=0,
)
