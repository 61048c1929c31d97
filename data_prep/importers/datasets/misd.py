"""Multiple Image Splicing Dataset (Kadam, Ahirrao, Kotecha 2021): one mask per object.

Every forged image has its own folder with the masks of its objects, which are united. Hosts
and donors are photographs of CASIA: names list them, `Sp_D_ani_00010_cha_00065_146`.
"""

from collections import defaultdict
from collections.abc import Iterator

from data_prep.importers.datasets.casia import groups_by_photograph
from data_prep.importers.layout import DatasetLayout, RawItem, Tree
from data_prep.importers.raw import IMAGE


def _find(tree: Tree) -> Iterator[RawItem]:
    tampered = tree.by_key(rf"Ground Truth Masks/([^/]+)/images/[^/]+{IMAGE}")
    masks: defaultdict[str, list[str]] = defaultdict(list)
    for key, mask in tree.by_key(rf"Ground Truth Masks/([^/]+)/masks/([^/]+){IMAGE}").items():
        masks[key.partition("/")[0]].append(mask)
    authentic = tree.by_key(rf"Au/(Au_[^/]+){IMAGE}")
    group = groups_by_photograph("misd", {key: (key,) for key in [*tampered, *authentic]})
    first = {key: names[0] for key, names in masks.items()}
    for key, image, mask in tree.pair(tampered, first):
        more = tuple(masks[key][1:])
        yield RawItem(key, image, 1, mask, "splice", group[key], more_masks=more)
    for key, image in authentic.items():
        yield RawItem(key, image, 0, group=group[key])


MISD = DatasetLayout(
    name="misd",
    layout="Ground Truth Masks/<name>/{images,masks}/*, Au/Au_*.jpg",
    polarity="white is manipulated, above 127; masks of the objects of an image are united",
    find=_find,
    expected={"manipulated": 300, "authentic": 618},
    mask_threshold=127,
    unites=True,
    ignored=r"Sp/.*",
)
