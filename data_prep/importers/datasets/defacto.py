"""DEFACTO: forgeries of COCO photographs; the field uses 12,000 images of it (MVSS's list).

The download holds forgeries only. COCO photographs in a folder `authentic/` beside them count as
authentic. The number behind `_` in a name is COCO's id.
"""

import re
from collections.abc import Iterator

from data_prep.importers.layout import DatasetLayout, RawItem, Tree
from data_prep.importers.raw import IMAGE

_KINDS = {"splicing": "splice", "copymove": "copymove", "inpainting": "removal"}


def _find(tree: Tree) -> Iterator[RawItem]:
    kinds = "|".join(_KINDS)
    tampered = tree.by_key(rf"((?:{kinds})(?:_\d+)?)_(?:img|images)/img/([^/]+)\.tif")
    masks = tree.by_key(rf"((?:{kinds})(?:_\d+)?)_annotations/probe_mask/([^/]+)\.(?:jpg|tif)")
    for key, image, mask in tree.pair(tampered, masks):
        kind = _KINDS[re.split("[_/]", key)[0].lower()]
        yield RawItem(key, image, 1, mask, kind, _group(key))
    for key, image in tree.by_key(rf"authentic/([^/]+){IMAGE}").items():
        yield RawItem(f"authentic/{key}", image, 0, group=_group(key))


def _group(key: str) -> str | None:
    number = re.search(r"(\d+)$", key)  # 9997_000000206363, COCO_train2014_000000206363
    return f"coco/{int(number[1])}" if number else None


DEFACTO = DatasetLayout(
    name="defacto",
    layout="{splicing_1,copymove,..}_img/img/*.tif, .._annotations/probe_mask/*.jpg, authentic/*",
    polarity="white is manipulated, above 127 (the masks are JPEG)",
    find=_find,
    expected={
        "manipulated": 6000,
        "authentic": 6000,
        "splice": 2000,
        "copymove": 2000,
        "removal": 2000,
    },
    mask_threshold=127,
    ignored=r"(?:donor_mask|inpaint_mask)/.*",
)
