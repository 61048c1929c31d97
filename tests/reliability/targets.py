"""What untrusted bytes are given to: each parser with a sound document to begin from.

A target takes bytes and a folder to put them in. It may raise `UserError` and nothing else.
"""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.inference.spec import ModelSpec, Refinement, from_json, to_json
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest, write_manifest
from boxpromptiml.manifests.sidecars import read_sidecar
from boxpromptiml.metrics.results import read_evaluation
from boxpromptiml.models.configs import WCBConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.segmenters.config import SegmenterConfig
from boxpromptiml.studies.plan import read_study
from data_prep.annotations import Annotations, coco, cvat, labelme, voc, yolo
from data_prep.annotations.fitting import fit_boxes
from data_prep.importers.archive import RawArchive
from tests.reliability.material import row
from tests.reliability.pictures import FORMATS, SIZE, encoded, noise
from tests.reliability.wrong_bytes import DAMAGED, ODD

Target = Callable[[bytes, Path], None]

_COCO = {
    "images": [{"id": 1, "file_name": "a/x.jpg", "width": 96, "height": 64}],
    "annotations": [
        {"id": 1, "image_id": 1, "bbox": [1.5, 2, 30, 40], "category_id": 1},
        {"id": 2, "image_id": 1, "segmentation": [[1, 2, 30, 2, 30, 40]], "category_id": 1},
        {"id": 3, "image_id": 1, "segmentation": {"size": [64, 96], "counts": [10, 50, 6084]}},
        {"id": 4, "image_id": 1, "segmentation": {"size": [64, 96], "counts": "0h0"}},
    ],
    "categories": [{"id": 1, "name": "manipulated"}],
}
_LABELME = {
    "imagePath": "x.jpg", "imageWidth": 96, "imageHeight": 64,
    "shapes": [
        {"label": "m", "shape_type": "rectangle", "points": [[1, 2], [30, 40]]},
        {"label": "m", "shape_type": "circle", "points": [[30, 30], [35, 30]]},
    ],
}  # fmt: skip
_VOC = """<?xml version="1.0" encoding="utf-8"?><annotation><filename>x.jpg</filename>
<size><width>96</width><height>64</height><depth>3</depth></size><object><name>m</name><bndbox>
<xmin>1</xmin><ymin>2.5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"""
_CVAT = """<?xml version="1.0"?><annotations><version>1.1</version>
<image id="0" name="a/x.jpg" width="96" height="64">
<box label="m" xtl="1" ytl="2" xbr="30" ybr="40" rotation="12.5"/>
<ellipse label="m" cx="40" cy="30" rx="9" ry="5"/>
<polygon label="m" points="1,2;30,2;30,40"/><mask label="m" rle="1,2" left="1" top="2" width="9"
height="8"/></image></annotations>"""
_STUDY = """title: Which input
config: experiments/student.yaml
reference: a
seeds: [0, 1]
settings: {trainer.max_epochs: 3}
prepare: [data_prep check --out x]
variants:
  a: {what: plain, settings: {data.size: [64, 64]}}
  b: {what: other, config: x.yaml, same_as: s/a}
"""


def _read(data: bytes, folder: Path, name: str, read: Callable[[Path], Annotations]) -> None:
    """Read annotations and make their boxes; a sound box lies inside the image."""
    path = folder / name
    path.write_bytes(data)
    for annotated in read(path).images:
        try:
            boxes = fit_boxes(annotated, "x", SIZE).boxes
        except RejectedInput:
            continue
        for box in boxes:
            if not (0 <= box.x0 < box.x1 <= SIZE[1] and 0 <= box.y0 < box.y1 <= SIZE[0]):
                raise AssertionError(f"{box} is no sound box")


def _manifest(data: bytes, folder: Path) -> None:
    """What can be read can be written and read again."""
    path = folder / "m.jsonl"
    path.write_bytes(data)
    manifest = read_manifest(path)
    write_manifest(folder / "again.jsonl", manifest.header, manifest.samples)
    if read_manifest(folder / "again.jsonl").samples != manifest.samples:
        raise AssertionError("another manifest is read than was written")


def _table(data: bytes, folder: Path) -> None:
    (folder / "metrics.json").write_bytes(_METRICS)
    (folder / "per_image.csv").write_bytes(data)
    read_evaluation(folder)


def _metrics(data: bytes, folder: Path) -> None:
    (folder / "metrics.json").write_bytes(data)
    (folder / "per_image.csv").write_bytes(_ROWS)
    read_evaluation(folder)


def _sidecar(data: bytes, folder: Path) -> None:
    (folder / "m.json").write_bytes(data)
    read_sidecar(folder / "m.png")


def _study(data: bytes, folder: Path) -> None:
    (folder / "s.yaml").write_bytes(data)
    read_study(folder / "s.yaml")


def _model(data: bytes, folder: Path) -> None:
    """A description that is believed can be written and read again."""
    path = folder / "m.onnx"
    spec = ModelSpec.from_dict(from_json(data.decode(errors="replace"), path), str(path))
    if ModelSpec.from_dict(spec.to_dict()) != spec:
        raise AssertionError("another description is read than was written")


def _archive(data: bytes, folder: Path) -> None:
    (folder / "a.zip").write_bytes(data)
    source = RawArchive(folder / "a.zip", folder / "out")
    for number, name in enumerate(source.names[:20]):
        try:
            source.place(name, f"images/{number}.png")
        except RejectedInput:
            continue


def decoder(data: bytes, folder: Path) -> None:
    """Decode as image and as mask."""
    path = folder / "x"
    path.write_bytes(data)
    for read in (images.read_image, images.probe, images.read_mask, images.read_trimap):
        try:
            read(path)
        except RejectedInput:
            continue


def pictures() -> list[bytes]:
    """Small files of every format, sound, odd and damaged, for `decoder`."""
    dice = np.random.default_rng(0)
    made = [encoded(noise(dice), kind) for kind in FORMATS]
    kinds = (DAMAGED | ODD).items()
    made += [make(dice) for name, (_, make, _) in kinds if "bomb" not in name]
    return [data for data in made if 20 < len(data) < 10**5]


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("images/a.png", encoded(noise(np.random.default_rng(0)), "PNG"))
        stream.writestr("masks/ü.txt", "x" * 300)
    return buffer.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


_MODEL = ModelSpec(
    WCBConfig("resnet10t", "sel", (1, 2)),
    NetworkInput("native", (64, 96), (60, 90)),
    0.5,
    refinement=Refinement(SegmenterConfig("slic", segments=30)),
    trained_on=("CASIA v2",),
)
_EVALUATION = Path(__file__).parents[1] / "compat" / "v1" / "evaluation"
_METRICS, _ROWS = ((_EVALUATION / n).read_bytes() for n in ("metrics.json", "per_image.csv"))
_SIDECAR = {
    "schema_version": 1, "signature": "s", "image_sha256": "i", "mask_sha256": "m",
    "boxes": [[1.0, 2.0, 30.0, 40.0]], "teacher": {"a": 1}, "scores": [0.5], "notes": ["n"],
    "status": "ok", "unsure": 0.1,
}  # fmt: skip
_MANIFEST = b"\n".join(
    _json(line)
    for line in (
        {"schema_version": 1, "image_root": ".", "pseudo_root": ".", "notes": {"a": 1.5}},
        row("tampered/a.jpg", mask="masks/a.png", mask_threshold=127, box_origin="human"),
        row("authentic/b.jpg", label=0, boxes=[], image_sha256="00"),
    )
)

TARGETS: dict[str, tuple[bytes, Target]] = {
    "coco": (_json(_COCO), lambda d, f: _read(d, f, "a.json", coco.read)),
    "voc": (_VOC.encode(), lambda d, f: _read(d, f, "a.xml", voc.read)),
    "yolo": (
        b"0 0.5 0.5 0.2 0.3\n1 0.1 0.1 0.4 0.1 0.4 0.4\n",
        lambda d, f: _read(d, f, "a.txt", yolo.read),
    ),
    "cvat": (_CVAT.encode(), lambda d, f: _read(d, f, "a.xml", cvat.read)),
    "labelme": (_json(_LABELME), lambda d, f: _read(d, f, "a.json", labelme.read)),
    "manifest": (_MANIFEST, _manifest),
    "sidecar": (_json(_SIDECAR), _sidecar),
    "csv": (_ROWS, _table),
    "metrics": (_METRICS, _metrics),
    "study": (_STUDY.encode(), _study),
    "model": (to_json(_MODEL.to_dict()).encode(), _model),
    "archive": (_zip(), _archive),
}


def accepts(target: Target, data: bytes, folder: Path) -> bool:
    """Whether a target takes the bytes; whatever it raises but `UserError` passes through."""
    try:
        target(data, folder)
    except UserError:
        return False
    return True
