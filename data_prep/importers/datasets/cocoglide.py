"""CocoGlide: objects of COCO val2017, repainted by GLIDE from a prompt; joined by COCO's id."""

from collections.abc import Iterator

from data_prep.importers.layout import DatasetLayout, RawItem, Tree


def _find(tree: Tree) -> Iterator[RawItem]:
    tampered = tree.by_key(r"fake/glide_inpainting_val2017_(\d+)_up\.png")
    masks = tree.by_key(r"mask/[^/]+_(\d+)_mask\.png")  # dining table_114871_mask.png
    for key, image, mask in tree.pair(tampered, masks):
        yield RawItem(f"fake/{key}", image, 1, mask, group=f"coco/{int(key)}")
    for key, image in tree.by_key(r"real/[^/]+_(\d+)\.png").items():
        yield RawItem(f"real/{key}", image, 0, group=f"coco/{int(key)}")


COCOGLIDE = DatasetLayout(
    name="cocoglide",
    layout="fake/glide_inpainting_val2017_<id>_up.png, mask/<class>_<id>_mask.png, real/<..>.png",
    polarity="white is manipulated, above 127",
    find=_find,
    expected={"manipulated": 512, "authentic": 512},
    mask_threshold=127,
)
