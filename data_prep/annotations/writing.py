"""Writers of annotation files: the shapes of a manifest's images as other tools read them.

There is one function per format, which yields relative paths and texts: one file per image, or a
single one with the path "". Coordinates have all their decimals and count from 0; x1 and y1 lie
outside, as in a manifest. An image whose `boxes` are None was not annotated: a format that has no
word for that leaves it out.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple
from urllib.parse import quote
from xml.etree.ElementTree import Comment, Element, SubElement, indent, tostring

import numpy as np

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io.files import json_text
from boxpromptiml.io.outputs import EXPORT_BOXES
from boxpromptiml.manifests.coco import to_coco
from boxpromptiml.records import Box, MaskArray, Sample
from data_prep.annotations.parts import edge_polygon, full_rle
from data_prep.annotations.rle import runs_of

WrittenFormat = Literal["coco", "voc", "yolo", "cvat", "labelstudio"]
Texts = Iterator[tuple[str, str]]


class Drawn(NamedTuple):
    """An image with the shapes to write.

    Attributes:
        sample: Its size and boxes are those of the picture that the shapes refer to.
        parts: The mask inside each of the boxes, which then have whole coordinates; empty where
            the boxes themselves are the shapes.
    """

    sample: Sample
    parts: tuple[MaskArray, ...] = ()

    @property
    def shapes(self) -> list[tuple[Box, MaskArray | None]]:
        """Each box with its mask (H, W), None without one."""
        boxes = self.sample.boxes or ()
        return list(zip(boxes, self.parts or [None] * len(boxes), strict=True))


def _coco(images: Iterable[Drawn], name: str) -> Texts:
    masks: list[dict[str, Any]] = []  # what each annotation has besides its box

    def samples() -> Iterator[Sample]:
        for drawn in images:
            size = drawn.sample.size
            for box, part in drawn.shapes:
                mask: dict[str, Any] = {}
                if part is not None:
                    rle = {"size": size, "counts": full_rle(box, part, size)}
                    mask = {"segmentation": rle, "area": int(part.sum())}
                masks.append(mask)
            yield drawn.sample

    content = to_coco(samples(), name)
    for annotation, mask in zip(content["annotations"], masks, strict=True):
        annotation.update(mask)
    content["info"]["made_by"] = EXPORT_BOXES
    yield "", json_text(content)


def _cvat(images: Iterable[Drawn], name: str) -> Texts:
    root = Element("annotations")
    root.append(Comment(f" {EXPORT_BOXES} "))
    SubElement(root, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
    SubElement(SubElement(labels, "label"), "name").text = name
    for index, drawn in enumerate(images):
        height, width = drawn.sample.size
        attributes = {"id": index, "name": drawn.sample.image, "width": width, "height": height}
        image = SubElement(root, "image", _texts(attributes))
        for box, part in drawn.shapes:
            x0, y0, x1, y1 = box
            shared = {"label": name, "source": "manual", "occluded": 0, "z_order": 0}
            if part is None:
                sides = {"xtl": x0, "ytl": y0, "xbr": x1, "ybr": y1}
                SubElement(image, "box", _texts(shared | sides))
            else:
                place = {"left": x0, "top": y0, "width": x1 - x0, "height": y1 - y0}
                runs = ", ".join(map(str, runs_of(part.ravel())))
                SubElement(image, "mask", _texts(shared | {"rle": runs} | place))
    yield "", _xml(root)


def _annotated(images: Iterable[Drawn]) -> Iterator[tuple[Drawn, PurePosixPath]]:
    """Images that somebody looked at, with their paths: VOC and YOLO know no others."""
    for drawn in images:
        if drawn.sample.boxes is not None:
            yield drawn, PurePosixPath(drawn.sample.image)


def _lists(folder: str, listed: dict[str, list[str]]) -> Texts:
    """A file a split, a line an image."""
    for split, names in listed.items():
        yield f"{folder}{split}.txt", "".join(f"{one}\n" for one in names)


def _voc(images: Iterable[Drawn], name: str) -> Texts:
    listed: dict[str, list[str]] = {}
    for drawn, path in _annotated(images):
        sample = drawn.sample
        listed.setdefault(sample.split, []).append(str(path.with_suffix("")))
        root = Element("annotation")
        SubElement(root, "folder").text = str(path.parent)
        SubElement(root, "filename").text = path.name
        size = {"width": sample.size[1], "height": sample.size[0], "depth": 3}
        _children(SubElement(root, "size"), size)
        SubElement(root, "segmented").text = "0"
        for (x0, y0, x1, y1), _ in drawn.shapes:
            node = SubElement(root, "object")
            _children(node, {"name": name, "pose": "Unspecified", "truncated": 0, "difficult": 0})
            sides = {"xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}
            _children(SubElement(node, "bndbox"), sides)
        yield f"Annotations/{path.with_suffix('.xml')}", _xml(root)
    yield from _lists("ImageSets/Main/", listed)
    labels = f"background:0,0,0::\n{name}:128,0,0::\n"  # CVAT and datumaro have no other list
    yield "labelmap.txt", f"# label:color_rgb:parts:actions\n{labels}"


def _yolo(images: Iterable[Drawn], name: str) -> Texts:
    listed: dict[str, list[str]] = {}
    for drawn, path in _annotated(images):
        sample = drawn.sample
        listed.setdefault(sample.split, []).append(f"./images/{path}")
        lines = (f"0 {_fractions(box, part, sample.size)}\n" for box, part in drawn.shapes)
        yield f"labels/{path.with_suffix('.txt')}", "".join(lines)
    yield from _lists("", listed)
    parts = "".join(f"{split}: {split}.txt\n" for split in listed)
    yield "data.yaml", f"{parts}names:\n  0: {json.dumps(name, ensure_ascii=False)}\n"


def _fractions(box: Box, part: MaskArray | None, size: tuple[int, int]) -> str:
    """Centre, width and height of a box, or the corners of a polygon, as fractions of the image."""
    if part is None:
        x0, y0, x1, y1 = box
        points = np.array([[(x0 + x1) / 2, (y0 + y1) / 2], [x1 - x0, y1 - y0]])
    else:
        points = edge_polygon(box, part)
    return " ".join(f"{value:.12f}" for value in (points / size[::-1]).ravel())


def _labelstudio(images: Iterable[Drawn], name: str) -> Texts:
    tasks: list[dict[str, Any]] = []
    for drawn in images:
        sample = drawn.sample
        height, width = sample.size
        results: list[dict[str, Any]] = []
        for box, part in drawn.shapes:
            value = _percent(box, part, sample.size)
            kind = "rectanglelabels" if part is None else "polygonlabels"
            results.append(
                {
                    "id": f"{len(tasks)}-{len(results)}",
                    "type": kind,
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "value": value | {kind: [name]},
                }
            )
        address = f"/data/local-files/?d={quote(sample.image)}"
        done = [] if sample.boxes is None else [{"result": results}]
        meta = {"made_by": EXPORT_BOXES}
        tasks.append({"data": {"image": address}, "annotations": done, "meta": meta})
    yield "", json.dumps(tasks, allow_nan=False) + "\n"


def _percent(box: Box, part: MaskArray | None, size: tuple[int, int]) -> dict[str, Any]:
    """A rectangle or a polygon in percent of the image."""
    percent = 100 / np.array(size[::-1])
    if part is not None:
        return {"points": (edge_polygon(box, part) * percent).tolist(), "closed": True}
    x, y = (np.array(box[:2]) * percent).tolist()
    width, height = ((np.array(box[2:]) - box[:2]) * percent).tolist()
    return {"x": x, "y": y, "width": width, "height": height, "rotation": 0}


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


def _children(node: Element, values: Mapping[str, object]) -> None:
    for key, value in values.items():
        SubElement(node, key).text = str(value)


def _xml(root: Element) -> str:
    indent(root)
    return tostring(root, encoding="unicode") + "\n"


def refuse_same_file(samples: Sequence[Sample]) -> list[RejectedInput]:
    """Reject images that differ only in their suffix: VOC and YOLO have one file for them all."""
    stems = Counter(PurePosixPath(sample.image).with_suffix("") for sample in samples)
    message = "another image has the same name but for the suffix, and would have the same file"
    return [
        RejectedInput(sample.image, "same_name", message)
        for sample in samples
        if stems[PurePosixPath(sample.image).with_suffix("")] > 1
    ]


class Writer(NamedTuple):
    """A format that is written.

    Attributes:
        texts: Yields its files, from the images and the name of the class.
        images: Where its tools look for the images, beside the files; None for a single file,
            which leaves that to the tool.
        ending: Of a single file.
    """

    texts: Callable[[Iterable[Drawn], str], Texts]
    images: str | None = None
    ending: str = ".json"


WRITERS: dict[WrittenFormat, Writer] = {
    "coco": Writer(_coco),
    "voc": Writer(_voc, "JPEGImages"),
    "yolo": Writer(_yolo, "images"),
    "cvat": Writer(_cvat, ending=".xml"),
    "labelstudio": Writer(_labelstudio),
}
