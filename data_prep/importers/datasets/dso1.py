"""DSO-1: people pasted into group photographs; black is manipulated.

`splicing-N` and `normal-N` are numbered independently, so siblings are unknown.
"""

from collections.abc import Iterator

from data_prep.importers.datasets.nist16 import read_inverted
from data_prep.importers.layout import DatasetLayout, RawItem, Tree


def _find(tree: Tree) -> Iterator[RawItem]:
    tampered = tree.by_key(r"DSO-1/(splicing-\d+)\.png")
    masks = tree.by_key(r"DSO-1-Fake-Images-Masks/(splicing-\d+)\.png")
    for key, image, mask in tree.pair(tampered, masks):
        yield RawItem(key, image, 1, mask, "splice")
    for key, image in tree.by_key(r"DSO-1/(normal-\d+)\.png").items():
        yield RawItem(key, image, 0)


DSO1 = DatasetLayout(
    name="dso1",
    layout="DSO-1/{splicing,normal}-N.png, DSO-1-Fake-Images-Masks/splicing-N.png",
    polarity="converted: black, up to 127, is manipulated",
    find=_find,
    expected={"manipulated": 100, "authentic": 100},
    convert=read_inverted,
    ignored=r"DSI-1/.*",
)
