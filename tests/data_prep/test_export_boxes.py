import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from boxpromptiml.io import images
from boxpromptiml.io.orientation import upright_box
from boxpromptiml.manifests.coco import to_coco
from boxpromptiml.manifests.manifest import Header, read_manifest, write_manifest
from boxpromptiml.records import Box, Sample
from data_prep.__main__ import main
from data_prep.annotations.parts import split_parts
from data_prep.annotations.writing import WRITERS, WrittenFormat
from data_prep.pseudo_masks import pseudo_masks
from tests.helpers.approx import approx
from tests.helpers.data import make_manifest

SIZE = (80, 120)
ROWS = {  # image: label, boxes, origin
    "t/my photo ü.jpg": (1, (Box(1.25, 2.5, 30.75, 40.125), Box(0, 0, 120, 80)), "mask"),
    "t/cam.jpg": (1, (Box(0.1, 0.2, 0.3, 0.7),), "cam"),
    "t/human.jpg": (None, (Box(1, 2, 3, 4),), "human"),
    "t/looked.jpg": (1, (), "human"),
    "t/network.jpg": (1, (), "cam"),
    "t/empty of unknown.jpg": (1, (), None),
    "t/unknown.jpg": (1, (Box(1, 2, 3, 4),), None),
    "t/nobody.jpg": (1, None, None),
    "a/authentic.jpg": (0, (), None),
}


def _samples(rows: dict[str, Any], blank: bool = False) -> list[Sample]:
    return [
        Sample(
            id=image,
            dataset="d",
            split="train",
            group=image,
            image=image,
            size=SIZE,
            label=label,
            boxes=((() if label == 0 else None) if blank else boxes),
            box_origin=None if blank else origin,
        )
        for image, (label, boxes, origin) in rows.items()
    ]


def _exported(tmp_path: Path, samples: list[Sample]) -> Path:
    write_manifest(tmp_path / "m.jsonl", Header(), samples)
    words = ["--manifest", str(tmp_path / "m.jsonl"), "--out", str(tmp_path / "boxes.json")]
    assert main(["export-boxes", *words]) == 0
    return tmp_path / "boxes.json"


def _round_trip(tmp_path: Path, rows: dict[str, Any]) -> Sequence[Sample]:
    _exported(tmp_path, _samples(rows))
    write_manifest(tmp_path / "m.jsonl", Header(), _samples(rows, blank=True))
    words = ["--manifest", tmp_path / "m.jsonl", "--annotations", tmp_path / "boxes.json"]
    words += ["--format", "coco", "--out", tmp_path / "back.jsonl"]
    assert main(["import-boxes", *map(str, words)]) == 0
    return read_manifest(tmp_path / "back.jsonl").samples


def test_everything_comes_back(tmp_path: Path) -> None:
    for sample, (label, boxes, origin) in zip(
        _round_trip(tmp_path, ROWS), ROWS.values(), strict=True
    ):
        assert sample.label == label
        assert sample.box_origin == origin
        if boxes is None:
            assert sample.boxes is None
        else:
            assert sample.boxes == tuple(approx(box, abs=1e-9) for box in boxes)


def test_deleted_and_added_boxes_are_a_persons(tmp_path: Path) -> None:
    rows = {"deleted.jpg": (1, (Box(1, 2, 3, 4),), "cam"), "added.jpg": (1, (), "cam")}
    samples = _samples(rows)
    path = _exported(tmp_path, samples)
    content = json.loads(path.read_text())
    content["annotations"] = [{"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]}]
    path.write_text(json.dumps(content))
    words = ["--manifest", tmp_path / "m.jsonl", "--annotations", path, "--format", "coco"]
    assert main(["import-boxes", *map(str, words), "--out", str(tmp_path / "back.jsonl")]) == 0
    back = read_manifest(tmp_path / "back.jsonl").samples
    assert [(s.boxes, s.box_origin) for s in back] == [((), "human"), (((1, 2, 4, 6),), "human")]


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    coco = COCO(str(_exported(tmp_path, _samples(ROWS))))
    images = coco.loadImgs(coco.getImgIds())
    assert [image["file_name"] for image in images] == list(ROWS)
    assert {(image["height"], image["width"]) for image in images} == {SIZE}
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["manipulated"]
    for image, (_, boxes, _) in zip(images, ROWS.values(), strict=True):
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        expected = [[b.x0, b.y0, b.x1 - b.x0, b.y1 - b.y0] for b in boxes or ()]
        assert [annotation["bbox"] for annotation in found] == expected
        assert [a["area"] for a in found] == [pytest.approx(w * h) for _, _, w, h in expected]


def test_ids_are_unique_and_paths_relative(tmp_path: Path) -> None:
    content = json.loads(_exported(tmp_path, _samples(ROWS)).read_text())
    ids = [annotation["id"] for annotation in content["annotations"]]
    assert ids == [1, 2, 3, 4, 5]
    assert not any(image["file_name"].startswith("/") for image in content["images"])


FOLDERS = sorted(kind for kind, writer in WRITERS.items() if writer.images)


def _export(manifest: Path, out: Path, *more: object) -> int:
    words = ["--manifest", manifest, "--out", out, *more]
    return main(["export-boxes", *map(str, words)])


def _import(manifest: Path, annotations: Path, kind: str, *more: str) -> list[Sample]:
    out = manifest.with_name("back.jsonl")
    words = ["--manifest", manifest, "--annotations", annotations, "--format", kind, "--out", out]
    assert main(["import-boxes", *map(str, words), *more]) == 0
    return list(read_manifest(out).samples)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_comes_back_through_the_commands(kind: WrittenFormat, tmp_path: Path) -> None:
    rows = {k: v for k, v in ROWS.items() if kind != "cvat" or v[1] is not None}
    write_manifest(tmp_path / "m.jsonl", Header(), _samples(rows))
    out = tmp_path / ("exported" + ("" if kind in FOLDERS else WRITERS[kind].ending))
    assert _export(tmp_path / "m.jsonl", out, "--format", kind) == 0
    write_manifest(tmp_path / "m.jsonl", Header(), _samples(rows, blank=True))
    for sample, (label, boxes, _) in zip(
        _import(tmp_path / "m.jsonl", out, kind), rows.values(), strict=True
    ):
        assert sample.label == label
        expected = None if boxes is None else tuple(approx(box, abs=1e-9) for box in boxes)
        assert sample.boxes == expected


def _written(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {path.relative_to(folder).as_posix() for path in found} - {".lock", "exported.json"}


@pytest.mark.parametrize("kind", FOLDERS)
def test_an_export_replaces_its_own_files_and_no_others(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, manifest = tmp_path / "out", tmp_path / "m.jsonl"
    write_manifest(manifest, Header(), _samples(ROWS))
    assert _export(manifest, out, "--format", kind) == 0
    (out / "mine.txt").write_text("notes")
    before = _written(out)
    write_manifest(manifest, Header(), _samples({"t/cam.jpg": ROWS["t/cam.jpg"]}))
    assert _export(manifest, out, "--format", kind) == 0
    gone = before - _written(out)
    assert len(gone) == len(ROWS) - 2  # one stays, one had no file, since nobody annotated it
    assert "mine.txt" not in gone
    (stays,) = (out / name for name in _written(out) if "cam." in name)
    (out / "exported.json").unlink()
    stays.write_text("by somebody else")
    assert _export(manifest, out, "--format", kind) == 1
    assert "is not of an earlier export" in capsys.readouterr().err
    assert stays.read_text() == "by somebody else"


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("stays", [True, False])
def test_labels_that_were_corrected_by_hand_are_kept(
    kind: str, stays: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, manifest = tmp_path / "out", tmp_path / "m.jsonl"
    write_manifest(manifest, Header(), _samples(ROWS))
    assert _export(manifest, out, "--format", kind) == 0
    (label,) = (out / name for name in _written(out) if "cam." in name)
    exported = label.read_text()
    label.write_text(exported + "\n")
    before = _written(out)
    others = {name: row for name, row in ROWS.items() if name != "t/cam.jpg"}
    write_manifest(manifest, Header(), _samples(ROWS if stays else others))
    assert _export(manifest, out, "--format", kind) == 1
    assert f"{label}: was edited after it was exported" in capsys.readouterr().err
    assert label.read_text() == exported + "\n"
    assert _written(out) == before
    label.write_text(exported)
    names = [*json.loads((out / "exported.json").read_text())]
    assert _export(manifest, out, "--format", kind) == 0
    (out / "exported.json").write_text(json.dumps(names))  # as earlier versions wrote it
    assert _export(manifest, out, "--format", kind) == 0


def test_a_list_of_files_cannot_lead_out_of_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("notes")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    write_manifest(tmp_path / "m.jsonl", Header(), _samples(ROWS))
    for name in ("../mine.txt", str(tmp_path / "mine.txt"), "link/mine.txt"):
        (tmp_path / "out" / "exported.json").write_text(json.dumps([name]))
        assert _export(tmp_path / "m.jsonl", tmp_path / "out", "--format", "yolo") == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert (tmp_path / "mine.txt").read_text() == "notes"


def test_what_cannot_be_written_is_listed(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "b\n.jpg", "c.jpg"]
    rows: dict[str, Any] = {name: (1, (Box(1, 2, 3, 4),), "human") for name in names}
    write_manifest(tmp_path / "m.jsonl", Header(), _samples(rows))
    assert _export(tmp_path / "m.jsonl", tmp_path / "out", "--format", "yolo") == 3
    listed = (tmp_path / "out.errors.jsonl").read_text().splitlines()
    reasons = [json.loads(row)["reason"] for row in listed]
    assert reasons == ["same_name", "same_name", "name"]
    assert {path.name for path in (tmp_path / "out" / "labels").iterdir()} == {"c.txt"}
    assert _export(tmp_path / "m.jsonl", tmp_path / "x.json") == 0  # COCO can name them all


@pytest.mark.parametrize("name", ["", "two\nlines", "a:b"])
def test_a_class_name_that_files_cannot_hold_is_refused(name: str, tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", Header(), _samples(ROWS))
    assert _export(tmp_path / "m.jsonl", tmp_path / "x", f"--class_name={name}") == 1
    assert not (tmp_path / "x").exists()


def test_images_are_found_as_yolo_trainers_look_for_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for paths, relative in (
        (["images/a.jpg", "images/s/b.jpg"], "data/images"),
        (["x/images/a.jpg", "images/s/b.jpg"], "data"),
    ):
        samples = [_samples({path: (1, (Box(1, 2, 3, 4),), "human")})[0] for path in paths]
        write_manifest(tmp_path / "m.jsonl", Header(image_root="data"), samples)
        (tmp_path / relative).mkdir(parents=True, exist_ok=True)
        out = tmp_path / f"out{len(relative)}"
        assert _export(tmp_path / "m.jsonl", out, "--format", "yolo") == 0
        assert (out / "images").resolve() == tmp_path / relative
        assert not (out / "images").readlink().is_absolute()
        if relative == "data/images":
            assert not caplog.records
            for line in (out / "train.txt").read_text().splitlines():
                image, _, rest = f"{out}/{line[2:]}".rpartition("/images/")
                assert Path(f"{image}/labels/{rest}").with_suffix(".txt").is_file()
    assert "2 images lie in another folder `images`" in caplog.text


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_view_of_boxes_and_masks_comes_back(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "x.jpg", exif=exif)
    mask = np.zeros(SIZE, np.uint8)
    mask[10:30, 50:115] = 255
    images.write_png(tmp_path / "x.png", mask)
    box = Box(50, 10, 115, 30)
    (sample,) = _samples({"x.jpg": (1, (box,), "mask")})
    sample = dataclasses.replace(sample, mask="x.png")
    write_manifest(tmp_path / "m.jsonl", Header(), [sample])
    for of in ("boxes", "truth"):
        for view, expected in (("stored", box), ("upright", upright_box(box, SIZE, orientation))):
            out = tmp_path / f"{of}_{view}.json"
            assert _export(tmp_path / "m.jsonl", out, "--view", view, "--of", of) == 0
            content = json.loads(out.read_text())
            x0, y0, x1, y1 = expected
            assert content["annotations"][0]["bbox"] == [x0, y0, x1 - x0, y1 - y0]
            turned = view == "upright" and orientation > 4
            assert content["images"][0]["height"] == SIZE[turned]
            blank = dataclasses.replace(sample, boxes=None, box_origin=None)
            write_manifest(tmp_path / "b.jsonl", Header(), [blank])
            (back,) = _import(tmp_path / "b.jsonl", out, "coco", "--view", view)
            assert back.boxes == (box,)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a tiny dataset with masks and pseudo-masks."""
    root = tmp_path_factory.mktemp("masked")
    make_manifest(root, "train", 2, 1)
    assert pseudo_masks(root / "train.jsonl", root / "pseudo", num_workers=0) == 0
    return root / "pseudo" / "manifest.jsonl"


@pytest.mark.parametrize("of", ["pseudo", "truth"])
def test_masks_are_those_of_the_manifest(of: str, masked: Path, tmp_path: Path) -> None:
    assert _export(masked, tmp_path / "x.json", "--of", of) == 0
    coco, manifest = COCO(str(tmp_path / "x.json")), read_manifest(masked)
    for image in coco.loadImgs(coco.getImgIds()):
        (sample,) = (s for s in manifest.samples if s.image == image["file_name"])
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        if sample.label == 0:
            assert (image["annotated"], annotations) == (True, [])
            continue
        path = manifest.pseudo_mask_path(sample) if of == "pseudo" else manifest.mask_path(sample)
        assert path is not None
        mask = np.asarray(Image.open(path)) == 255
        assert (sum(coco.annToMask(one) for one in annotations) == mask).all()
        assert len(annotations) == len(split_parts(mask))


def test_without_masks_an_image_is_not_annotated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(tmp_path / "m.jsonl", Header(teacher_signature="t"), _samples(ROWS))
    for of in ("pseudo", "truth"):
        assert _export(tmp_path / "m.jsonl", tmp_path / "x.json", "--of", of) == 0
        content = json.loads((tmp_path / "x.json").read_text())
        annotated = [image["file_name"] for image in content["images"] if image["annotated"]]
        assert (annotated, content["annotations"]) == (["a/authentic.jpg"], [])
    assert capsys.readouterr().err.count("has no pseudo-masks: export the manifest") == 1


def test_damaged_and_stale_masks_are_refused(
    masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(masked)
    rows = [s for s in manifest.samples if s.label == 1]
    (tmp_path / "m.png").write_bytes(b"no image")
    broken = dataclasses.replace(rows[0], mask="m.png", image="x.jpg", pseudo_mask=None)
    write_manifest(tmp_path / "m.jsonl", Header(), [broken])
    assert _export(tmp_path / "m.jsonl", tmp_path / "x.json", "--of", "truth") == 3
    assert "m.png" in (tmp_path / "x.errors.jsonl").read_text()
    moved = dataclasses.replace(rows[0], boxes=(Box(0, 0, 9, 9),))
    write_manifest(masked.with_name("moved.jsonl"), manifest.header, [moved])
    capsys.readouterr()
    assert _export(masked.with_name("moved.jsonl"), tmp_path / "y.json", "--of", "pseudo") == 1
    assert "1 pseudo-masks are stale" in capsys.readouterr().err
    assert not (tmp_path / "y.json").exists()


def test_what_is_no_file_of_the_format_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "m.jsonl"
    write_manifest(manifest, Header(), _samples(ROWS))
    (tmp_path / "a.jpg").write_bytes(b"photograph")
    (tmp_path / "a.json").write_text(json.dumps(to_coco(_samples(ROWS))))
    (tmp_path / "a.xml").write_text("<annotations></annotations>")
    for kind in ("coco", "cvat", "labelstudio", "voc", "yolo"):
        for out in (manifest, *tmp_path.glob("a.*")):
            before = out.read_bytes()
            assert _export(manifest, out, "--format", kind) == 1
            assert f"{out}: " in capsys.readouterr().err
            assert out.read_bytes() == before
