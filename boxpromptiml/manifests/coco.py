"""The boxes of samples as COCO JSON."""

from collections.abc import Iterable
from typing import Any

from boxpromptiml.records import Sample

_CATEGORY = 1


def to_coco(samples: Iterable[Sample], category: str = "manipulated") -> dict[str, Any]:
    """Samples as a COCO object with one category; ids count from 1.

    Boxes are [x, y, width, height] in stored pixels. `annotated` of an image says whether it was
    annotated, `box_origin` in the attributes of a box who drew it, `box_origin` of an image without
    boxes who found none.
    """
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, sample in enumerate(samples, start=1):
        row = {
            "id": image_id,
            "file_name": sample.image,
            "height": sample.size[0],
            "width": sample.size[1],
            "annotated": sample.boxes is not None,
        }
        if not sample.boxes:  # else it would outlive boxes that somebody deletes
            row["box_origin"] = sample.box_origin
        rows.append(row)
        for x0, y0, x1, y1 in sample.boxes or ():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": _CATEGORY,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "segmentation": [],
                    "iscrowd": 0,
                    "attributes": {"box_origin": sample.box_origin},
                }
            )
    return {
        "info": {"description": "coarse boxes around manipulated regions"},
        "licenses": [],
        "images": rows,
        "annotations": annotations,
        "categories": [{"id": _CATEGORY, "name": category, "supercategory": ""}],
    }
