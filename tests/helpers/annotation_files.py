"""Annotation files of every format: sound, broken, hostile and random."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.records import Box
from data_prep.annotations import coco, cvat, labelme, voc, yolo
from data_prep.annotations.fitting import fit_boxes

SIZE = (80, 120)  # (H, W)
READERS: dict[str, ModuleType] = {
    "coco": coco,
    "voc": voc,
    "yolo": yolo,
    "cvat": cvat,
    "labelme": labelme,
}
DRAWN: dict[str, list[tuple[float, float, float, float]]] = {
    "a b.jpg": [(1.25, 2.5, 30.75, 40.125), (0, 0, 120, 80)],
    "ünï 照片.jpg": [(99.9, 0.1, 100.1, 79.9)],
    "empty.jpg": [],
}


def boxes_in(
    module: ModuleType, path: Path, size: tuple[int, int] = SIZE, labels: Collection[str] = ()
) -> tuple[dict[str, tuple[Box, ...]], list[RejectedInput]]:
    """Boxes by the name of the image, and everything that was rejected."""
    found = module.read(path)
    fitted = {one.name: fit_boxes(one, one.name, size, labels=labels) for one in found.images}
    bad = [error for one in fitted.values() for error in one.rejected] + found.rejected
    return {name: one.boxes for name, one in fitted.items()}, bad


GOOD = (2, 2, 4, 4)


BAD: list[tuple[Any, Any, Any, Any]] = [
    (1, 1, 1, 5),  # no width
    (5, 1, 1, 5),  # inverted
    ("nan", 1, 3, 5),
    ("inf", 1, 3, 5),
    ("1e999", 1, 3, 5),
    ("", 1, 3, 5),
    ("x", 1, 3, 5),
    (120.5, 1, 121, 5),  # outside, though by less
]


def voc_text(corners: Sequence[Sequence[Any]]) -> str:
    """One image with boxes, as Pascal VOC."""
    objects = "".join(
        f"<object><name>f</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in corners
    )
    return (
        "<annotation><filename>x.jpg</filename><size><width>120</width><height>80</height></size>"
        f"{objects}</annotation>"
    )


def cvat_text(corners: Sequence[Sequence[Any]]) -> str:
    """One image with boxes, as CVAT for images."""
    boxes = "".join(
        f'<box label="f" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}"/>' for a, b, c, d in corners
    )
    return f'<annotations><image name="x.jpg" width="120" height="80">{boxes}</image></annotations>'


def labelme_text(corners: Sequence[Sequence[Any]]) -> str:
    """One image with boxes, as LabelMe."""
    shapes = [
        {"label": "f", "shape_type": "polygon", "points": [[a, b], [c, d]]}
        for a, b, c, d in corners
    ]
    image = {"imagePath": "x.jpg", "imageWidth": 120, "imageHeight": 80}
    return json.dumps(image | {"shapes": shapes})


BOMB = (
    '<!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(
        f'<!ENTITY {"abcdefghij"[i + 1]} "{("&" + "abcdefghij"[i] + ";") * 10}">' for i in range(9)
    )
    + "]><annotation>&j;</annotation>"
)


HOSTILE = {
    "billion laughs": BOMB,
    "external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    "external DTD": '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><annotation/>',
    "nesting": "<annotation>" + "<a>" * 50_000 + "</a>" * 50_000 + "</annotation>",
    "not closed": "<annotation>" + "<a>" * 1000,
    "encoding": '<?xml version="1.0" encoding="rot13"?><annotation/>',
    "no XML": "\x00\x01",
    "empty": "",
    "other root": "<html/>",
}
KEYS = [
    *["images", "annotations", "categories", "id", "file_name", "width", "height", "image_id"],
    *["category_id", "bbox", "segmentation", "size", "counts", "attributes", "name", "annotated"],
    *["imagePath", "imageWidth", "imageHeight", "shapes", "label", "points", "shape_type"],
]


scalars = st.one_of(
    st.sampled_from([0, 1, 2, 40, 80, 120, -1, 10**400, 1e308, True, None, "1", "nan", "circle"]),
    st.floats(),
    st.text(max_size=3),
)


trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=25,
)


words = scalars.map(str).map(lambda s: "".join(c for c in s if c.isprintable() and c not in '<>&"'))


corners = st.tuples(words, words, words, words)


fuzzed = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def check(module: ModuleType, path: Path, data: bytes) -> None:
    """Whatever a file contains gives boxes inside the image, rejections, or a `UserError`."""
    path.write_bytes(data)
    try:
        boxes, _ = boxes_in(module, path)
    except UserError:
        return
    for box in (box for found in boxes.values() for box in found):
        assert isinstance(box, Box)
        assert 0 <= box.x0 < box.x1 <= SIZE[1]
        assert 0 <= box.y0 < box.y1 <= SIZE[0]
