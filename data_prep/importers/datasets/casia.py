"""CASIA v1 and v2: splices and copy-moves, grouped by the source photographs in their names.

A name such as `Tp_D_CNN_M_B_cha00063_art00014_11818` lists the photographs an image was made from.
Masks carry corrected names, images often their old ones. An image belongs to the mask of its whole
name; what is left on both sides joins by the last number, if both names share a source photograph.
By number alone many images would get the mask of another: a hundred numbers of CASIA v1 occur four
times.

v1 has images of 384 x 256; some of its authentic images are those of v2. Its masks come from
namtpham's repository, whose folders `Sp` and `CM` say the kind: some names say the wrong one. v2
has many sizes; masks come from namtpham's or from SunnyHaze's corrected repository.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from data_prep.importers.layout import DatasetLayout, RawItem, Tree, connected
from data_prep.importers.raw import IMAGE

_PHOTOGRAPH = re.compile(r"_([a-z]{3})_?(\d+)(?=[_.]|$)", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"(?<=[_.])\d+$")
_KIND_OF_LETTER = {"D": "splice", "S": "copymove"}  # from Different images, from the Same image
_KIND_OF_FOLDER = {"SP": "splice", "CM": "copymove"}


def photographs(name: str) -> list[str]:
    """Source photographs that a name refers to, `cha00063` and `cha0063` being the same.

    `xxx00000` stands for a photograph that is not in the dataset and is left out.
    """
    found = [(kind.lower(), int(number)) for kind, number in _PHOTOGRAPH.findall(name)]
    return [f"{kind}{number}" for kind, number in found if (kind, number) != ("xxx", 0)]


def groups_by_photograph(dataset: str, names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Group of every key, so that images of one source photograph stay together.

    A splice joins its two photographs, so groups are the connected components.

    Args:
        dataset: Begins the names of the groups.
        names: Names that carry the photographs, by key.
    """
    chains = {
        key: [photograph for name in names[key] for photograph in photographs(name)] or [key]
        for key in names
    }
    component = connected(chains.values())
    return {key: f"{dataset}/{component[chain[0]]}" for key, chain in chains.items()}


def names_of_masks(images: Iterable[str], masks: Iterable[str]) -> dict[str, str]:
    """Name of the mask for every image that has one, by the rule at the top of this module."""
    images, masks = set(images), set(masks)
    joined = {name: name for name in images & masks}
    left: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((images - masks, masks - images)):
        for name in names:
            if number := _LAST_NUMBER.search(name):
                left[number[0]][side].append(name)
    for same_number in left.values():
        if [len(names) for names in same_number] == [1, 1]:
            (image,), (mask,) = same_number
            if set(photographs(image)) & set(photographs(mask)):
                joined[image] = mask
    return joined


def _items(
    tree: Tree,
    dataset: str,
    tampered: Mapping[str, str],
    masks: Mapping[str, str],
    authentic: Mapping[str, str],
    kinds: Mapping[str, str],
) -> Iterator[RawItem]:
    """Items of either version; `kinds` are by the name of the mask."""
    joined = names_of_masks(tampered, masks)
    for key in sorted(key for key, name in joined.items() if key != name):
        tree.correct(f"joined {key} to the mask of {joined[key]} by its number and source")
    names = {key: (key, joined.get(key, key)) for key in [*tampered, *authentic]}
    group = groups_by_photograph(dataset, names)
    for key, image, mask in tree.pair(tampered, masks, lambda key: joined.get(key, key)):
        yield RawItem(key, image, 1, mask, kinds[joined[key]], group[key])
    for key, image in authentic.items():
        yield RawItem(key, image, 0, group=group[key])


_V1_WITHOUT_MASK = ("Sp_D_NRN_A_cha0011_sec0011_0542", "Sp_D_NRN_A_sce0011_cha0011_0542")


def _find_v1(tree: Tree) -> Iterator[RawItem]:
    tampered = tree.by_key(rf"(?:Sp|CM|Tp)/(Sp_[DS]_[^/]+(?<!_gt)){IMAGE}")
    masks: dict[str, str] = {}
    kinds: dict[str, str] = {}  # by the mask's folder: some names say the wrong one
    for key, path in tree.by_key(r"(Sp|CM)/(Sp_[DS]_[^/]+)_gt\.png").items():
        folder, _, name = key.partition("/")
        if name in masks:
            tree.reject(path, "duplicate", f"stands for the same as {masks[name]}")
            continue
        masks[name], kinds[name] = path, _KIND_OF_FOLDER[folder.upper()]
    authentic = tree.by_key(rf"Au/(Au_[a-z]+_\d+){IMAGE}")
    for name in _V1_WITHOUT_MASK:
        if name in tampered and name not in masks:
            tree.correct(f"left out {tampered.pop(name)}, which never had a mask")
    yield from _items(tree, "casia_v1", tampered, masks, authentic, kinds)


CASIA_V1 = DatasetLayout(
    name="casia_v1",
    layout="{Sp,Tp/Sp,Tp/CM}/Sp_*.jpg, CASIA 1.0 groundtruth/{Sp,CM}/Sp_*_gt.png, Au/Au_*.jpg",
    polarity="white is manipulated, above 127 (one mask has five grey levels)",
    find=_find_v1,
    expected={"manipulated": 920, "authentic": 800, "splice": 461, "copymove": 459},
    mask_threshold=127,
)


def _find_v2(tree: Tree) -> Iterator[RawItem]:
    tampered = tree.by_key(rf"Tp/(Tp_[DS]_[^/]+){IMAGE}")
    masks = tree.by_key(r"(?:Gt|groundtruth|CASIA 2 Groundtruth)/(Tp_[DS]_[^/]+)_gt3?\.png")
    authentic = tree.by_key(rf"Au/(Au_[a-z]+_\d+){IMAGE}")
    for name, path in masks.items():
        if path.endswith("_gt3.png"):
            tree.correct(f"read {path} as {name}_gt.png")
    kinds = {name: _KIND_OF_LETTER[name[3].upper()] for name in masks}
    yield from _items(tree, "casia_v2", tampered, masks, authentic, kinds)


_V2_CORRECTED = "a known error; github.com/SunnyHaze/CASIA2.0-Corrected-Groundtruth has it right"
_V2_BAD_SIZES = """
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

CASIA_V2 = DatasetLayout(
    name="casia_v2",
    layout="Tp/Tp_*.{jpg,tif}, {Gt,groundtruth,CASIA 2 Groundtruth}/Tp_*_gt.png, Au/Au_*",
    polarity="white is manipulated, above 127",
    find=_find_v2,
    expected={"manipulated": 5123, "authentic": 7491, "splice": 1828, "copymove": 3295},
    mask_threshold=127,
    known=dict.fromkeys(_V2_BAD_SIZES.split(), _V2_CORRECTED),
)
