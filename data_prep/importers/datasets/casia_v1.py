"""CASIA v1: splices and copy-moves of 384 x 256.

Authentic images partly are those of CASIA v2. Old downloads name some images otherwise than
their masks; `Modified Tp.zip` of the ground-truth repository has them right, and is what is read.
"""

from collections.abc import Iterator

from data_prep.importers.datasets.casia import KINDS, groups
from data_prep.importers.layout import IMAGE, Dataset, Item, Tree

_NO_MASK = "Sp_D_NRN_A_cha0011_sec0011_0542"


def _find(tree: Tree) -> Iterator[Item]:
    tampered = tree.by_key(rf"Tp/(?:Sp|CM)/(Sp_[DS]_[^/]+){IMAGE}")
    masks = tree.by_key(r"(?:Sp|CM)/(Sp_[DS]_[^/]+)_gt\.png")
    authentic = tree.by_key(rf"Au/(Au_[a-z]+_\d+){IMAGE}")
    if _NO_MASK in tampered and _NO_MASK not in masks:
        tree.correct(f"left out {tampered.pop(_NO_MASK)}, which never had a mask")
    group = groups("casia_v1", {key: (key,) for key in [*tampered, *authentic]})
    for key, image, mask in tree.pair(tampered, masks):
        yield Item(key, image, 1, mask, KINDS[key[3].upper()], group[key])
    for key, image in authentic.items():
        yield Item(key, image, 0, group=group[key])


CASIA_V1 = Dataset(
    name="casia_v1",
    layout="Tp/{Sp,CM}/Sp_*.jpg, CASIA 1.0 groundtruth/{Sp,CM}/Sp_*_gt.png, Au/Au_*.jpg",
    polarity="white is manipulated, above 127 (one mask has five grey levels)",
    find=_find,
    expected={"manipulated": 920, "authentic": 800, "splice": 461, "copymove": 459},
    mask_threshold=127,
)
