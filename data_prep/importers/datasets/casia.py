"""CASIA v1 and v2: splices and copy-moves, grouped by the source photographs in their names.

A name such as `Tp_D_CNN_M_B_cha00063_art00014_11818` lists the photographs an image was made from.

v1 has images of 384 x 256; some of its authentic images are those of v2. Old downloads name some
images differently from their masks; `Modified Tp.zip` of the ground-truth repository has the right
names and is what is read.

v2 has many sizes; masks come from namtpham's repository. Some downloads still have the names from
before that repository's corrections. Image and mask of such a pair share the number at the end and
a source photograph; where the number is unique on both sides, it joins them.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from data_prep.importers.layout import IMAGE, DatasetLayout, RawItem, Tree, connected

_SOURCE = re.compile(r"_([a-z]{3})_?(\d+)(?=[_.]|$)", re.IGNORECASE)
KINDS = {"D": "splice", "S": "copymove"}  # from Different images, from the Same image


def groups(dataset: str, names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Group of every key, so that images of one source photograph stay together.

    A splice joins its two photographs, so groups are the connected components; `xxx00000` stands
    for a photograph that is not in the dataset and joins nothing.

    Args:
        names: Names that carry the sources, by key.
    """
    chains = {key: [s for name in names[key] for s in sources(name)] or [key] for key in names}
    component = connected(chains.values())
    return {key: f"{dataset}/{component[chain[0]]}" for key, chain in chains.items()}


def sources(name: str) -> list[str]:
    """Photographs that a name refers to, `cha00063` and `cha0063` being the same."""
    found = [(kind.lower(), int(number)) for kind, number in _SOURCE.findall(name)]
    return [f"{kind}{number}" for kind, number in found if (kind, number) != ("xxx", 0)]


_NO_MASK = "Sp_D_NRN_A_cha0011_sec0011_0542"


def _find_v1(tree: Tree) -> Iterator[RawItem]:
    tampered = tree.by_key(rf"Tp/(?:Sp|CM)/(Sp_[DS]_[^/]+){IMAGE}")
    masks = tree.by_key(r"(?:Sp|CM)/(Sp_[DS]_[^/]+)_gt\.png")
    authentic = tree.by_key(rf"Au/(Au_[a-z]+_\d+){IMAGE}")
    if _NO_MASK in tampered and _NO_MASK not in masks:
        tree.correct(f"left out {tampered.pop(_NO_MASK)}, which never had a mask")
    group = groups("casia_v1", {key: (key,) for key in [*tampered, *authentic]})
    for key, image, mask in tree.pair(tampered, masks):
        yield RawItem(key, image, 1, mask, KINDS[key[3].upper()], group[key])
    for key, image in authentic.items():
        yield RawItem(key, image, 0, group=group[key])


CASIA_V1 = DatasetLayout(
    name="casia_v1",
    layout="Tp/{Sp,CM}/Sp_*.jpg, CASIA 1.0 groundtruth/{Sp,CM}/Sp_*_gt.png, Au/Au_*.jpg",
    polarity="white is manipulated, above 127 (one mask has five grey levels)",
    find=_find_v1,
    expected={"manipulated": 920, "authentic": 800, "splice": 461, "copymove": 459},
    mask_threshold=127,
)


_CORRECTED = "a known error; github.com/SunnyHaze/CASIA2.0-Corrected-Groundtruth has it right"
_BAD_SIZES = """
Tp_D_CNN_M_N_sec00011_cha00085_11227 Tp_D_CRN_S_N_ani10191_ani10190_12437
Tp_D_CRN_S_N_nat10130_pla00049_11524 Tp_D_NND_M_B_nat20098_nat20073_01602
Tp_D_NRN_M_N_nat10134_nat00095_11912 Tp_D_NRN_M_N_nat10134_nat10124_11913
Tp_S_CRN_S_N_art00059_art00059_10508 Tp_S_NND_S_N_sec20064_sec20064_01654
Tp_S_NNN_S_N_art20077_art20077_01883 Tp_S_NNN_S_N_ind20037_ind20037_01778
Tp_S_NNN_S_N_sec00012_sec00012_11230 Tp_S_NNN_S_N_sec00074_sec00074_00751
Tp_S_NRD_S_N_arc20079_arc20079_01719 Tp_S_NRD_S_N_pla20071_pla20071_01971
Tp_S_NRN_S_B_ind10002_ind10002_20010 Tp_S_NRN_S_N_art20077_art20077_02316
Tp_S_NRN_S_N_pla20080_pla20080_01980
"""


def _find_v2(tree: Tree) -> Iterator[RawItem]:
    tampered = tree.by_key(rf"Tp/(Tp_[DS]_[^/]+){IMAGE}")
    masks = tree.by_key(r"(?:Gt|groundtruth|CASIA 2 Groundtruth)/(Tp_[DS]_[^/]+)_gt3?\.png")
    authentic = tree.by_key(rf"Au/(Au_[a-z]+_\d+){IMAGE}")
    for key, mask in masks.items():
        if mask.endswith("_gt3.png"):
            tree.correct(f"read {mask} as {key}_gt.png")
    renamed = _renamed(tampered, masks)
    for key, other in renamed.items():
        tree.correct(f"joined {key} to the mask of {other} by its number and source")
    names = {key: renamed.get(key, key) for key in [*tampered, *authentic]}
    group = groups("casia_v2", {key: (key, name) for key, name in names.items()})
    for key, image, mask in tree.pair(tampered, masks, lambda key: names[key]):
        yield RawItem(key, image, 1, mask, KINDS[names[key][3].upper()], group[key])
    for key, image in authentic.items():
        yield RawItem(key, image, 0, group=group[key])


def _renamed(tampered: Mapping[str, str], masks: Mapping[str, str]) -> dict[str, str]:
    """Key of the mask for images that have none of their name.

    Both sides have the number once, and both names share a source photograph: a number alone may
    belong to another image whose own mask is not there.
    """
    by_number: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, keys in enumerate((tampered, masks)):
        for key in keys:
            by_number[key.rpartition("_")[2]][side].append(key)
    pairs = [(*left, *right) for left, right in by_number.values() if len(left) == len(right) == 1]
    return {
        image: mask
        for image, mask in pairs
        if image != mask and set(sources(image)) & set(sources(mask))
    }


CASIA_V2 = DatasetLayout(
    name="casia_v2",
    layout="Tp/Tp_*.{jpg,tif}, {Gt,groundtruth,CASIA 2 Groundtruth}/Tp_*_gt.png, Au/Au_*",
    polarity="white is manipulated, above 127",
    find=_find_v2,
    expected={"manipulated": 5123, "authentic": 7491, "splice": 1828, "copymove": 3295},
    mask_threshold=127,
    known=dict.fromkeys(_BAD_SIZES.split(), _CORRECTED),
)
