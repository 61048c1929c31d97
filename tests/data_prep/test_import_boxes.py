import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from globox import Annotation, AnnotationSet, BoundingBox
from PIL import Image

from boxpromptiml.manifests.manifest import Header, read_manifest, write_manifest
from boxpromptiml.records import Box, Sample
from data_prep.__main__ import main
from tests.helpers.approx import approx

SIZE = (80, 120)
BOX = (1.25, 2.5, 30.75, 40.125)


def _sample(image: str, label: int | None = 1, boxes: Any = None, **more: Any) -> Sample:
    return Sample(image, "d", "train", image, image, SIZE, label, boxes, **more)


def _manifest(tmp_path: Path, *samples: Sample) -> Path:
    header = Header(image_root="photos", pseudo_root="pseudo", notes={"dataset": "d"})
    write_manifest(tmp_path / "m.jsonl", header, samples)
    return tmp_path / "m.jsonl"


def _coco(tmp_path: Path, images: dict[str, Any], name: str = "boxes.json") -> Path:
    """COCO of {file name: boxes, or (size, boxes)}; boxes of 4 numbers as globox writes them."""
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "forged"}]}
    for number, (file_name, boxes) in enumerate(images.items()):
        row = {"id": number, "file_name": file_name, "width": SIZE[1], "height": SIZE[0]}
        content["images"].append(row)
        for x0, y0, x1, y1 in boxes:
            box = {"image_id": number, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            content["annotations"].append(box)
    (tmp_path / name).write_text(json.dumps(content))
    return tmp_path / name


def _run(
    manifest: Path, annotations: Path, *more: str, kind: str = "coco", out: Path | None = None
) -> tuple[int, dict[str, Sample]]:
    out = out or manifest.parent / "out.jsonl"
    words = ["--manifest", manifest, "--annotations", annotations, "--format", kind, "--out", out]
    status = main(["import-boxes", *map(str, words), *more])
    return status, {s.id: s for s in read_manifest(out).samples} if status in (0, 3) else {}


def _errors(manifest: Path, name: str = "out.errors.jsonl") -> list[tuple[str, str]]:
    rows = (manifest.parent / name).read_text().splitlines()
    return [(row["reason"], row["message"]) for row in map(json.loads, rows)]


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo", "cvat", "labelme"])
def test_every_format_joins_by_path(kind: str, tmp_path: Path) -> None:
    names = [
        "a/x.jpg",
        "b/x.jpg",
        "b/my photo ü.png",
        "b/empty.jpg",
        "b/nobody.jpg",
        "b/classes.jpg",
    ]
    drawn: dict[str, list[tuple[float, ...]]] = {
        "a/x.jpg": [BOX],
        "b/x.jpg": [(0, 0, 120, 80), (5, 5, 6.5, 7)],
        "b/my photo ü.png": [BOX],
        "b/empty.jpg": [],
    }
    written = AnnotationSet(
        Annotation(
            name,
            (SIZE[1], SIZE[0]),
            [BoundingBox.create(label="f", coords=box) for box in boxes],
        )
        for name, boxes in drawn.items()
    )
    target = tmp_path / "labels"
    for folder in "ab":
        (target / folder).mkdir(parents=True)
    if kind == "coco":
        written.save_coco(target / "x.json", auto_ids=True)
    elif kind == "cvat":
        written.save_cvat(target / "x.xml")
    elif kind == "voc":
        written.save_pascal_voc(target)
    elif kind == "labelme":
        written.save_labelme(target)
    else:
        written.save_yolo_darknet(target, label_to_id={"f": 0})
        (target / "b" / "classes.txt").write_text("forged\n")
    manifest = _manifest(tmp_path, *(_sample(name) for name in names))
    status, samples = _run(manifest, target, kind=kind)
    assert status == 0
    for name, boxes in drawn.items():
        assert samples[name].boxes == tuple(approx(box) for box in boxes)
        assert samples[name].box_origin == "human"
    for name in names[-2:]:
        assert samples[name].boxes is None
        assert samples[name].box_origin is None
    assert [s.label for s in samples.values()] == [1] * len(names)
    assert [reason for reason, _ in _errors(manifest, "out.unannotated.jsonl")] == [
        "not_annotated"
    ] * 2
    assert not (tmp_path / "out.errors.jsonl").exists()


def test_bare_names_and_longer_paths_join_but_contradicting_folders_do_not(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, _sample("t/x.jpg"), _sample("t/y.jpg"), _sample("t/z.jpg"))
    boxes = _coco(tmp_path, {"x.jpg": [BOX], "my/photos/t/y.jpg": [BOX], "au/z.jpg": [BOX]})
    status, samples = _run(manifest, boxes)
    assert status == 3
    assert [s.boxes for s in samples.values()] == [(BOX,), (BOX,), None]
    ((reason, message),) = _errors(manifest)
    assert reason == "no_image"
    assert "'au/z.jpg'" in message


def test_ambiguous_and_duplicate_names_are_errors_that_say_so(tmp_path: Path) -> None:
    names = ["a/x.jpg", "b/x.jpg", "y.jpg", "c/y.jpg", "z.jpg"]
    manifest = _manifest(tmp_path, *map(_sample, names))
    boxes = _coco(tmp_path, {"x.jpg": [BOX], "y.jpg": [BOX], "z.jpg": [BOX], "photos/z.jpg": [BOX]})
    status, samples = _run(manifest, boxes)
    assert status == 3
    assert [name for name in names if samples[name].boxes] == ["y.jpg"]  # the very path
    errors = _errors(manifest)
    assert [reason for reason, _ in errors] == ["ambiguous", "duplicate", "duplicate"]
    assert "'a/x.jpg', 'b/x.jpg'" in errors[0][1]


def test_unicode_forms_are_one_name(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "ü.jpg")
    manifest = _manifest(tmp_path, _sample(composed))
    boxes = _coco(tmp_path, {unicodedata.normalize("NFD", composed): [BOX]})
    assert _run(manifest, boxes)[1][composed].boxes == (BOX,)


def test_boxes_of_another_size_are_rejected(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, _sample("x.jpg"), _sample("y.jpg"))
    boxes = _coco(tmp_path, {"x.jpg": [BOX], "y.jpg": [BOX]})
    content = json.loads(boxes.read_text())
    content["images"][0] |= {"width": SIZE[0], "height": SIZE[1]}
    boxes.write_text(json.dumps(content))
    status, samples = _run(manifest, boxes)
    assert status == 3
    assert [s.boxes for s in samples.values()] == [None, (BOX,)]
    ((reason, message),) = _errors(manifest)
    assert reason == "size_mismatch"
    assert "80 x 120" in message
    assert "EXIF" in message


def test_an_image_with_a_bad_box_is_not_annotated(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, _sample("x.jpg"), _sample("y.jpg"))
    boxes = _coco(tmp_path, {"x.jpg": [(5, 5, 1, 1)], "y.jpg": [(5, 5, 1, 1), BOX]})
    status, samples = _run(manifest, boxes)
    assert status == 3
    assert [s.boxes for s in samples.values()] == [None, None]  # not all of y's are known
    assert len(_errors(manifest)) == 2


def test_labels_of_images_never_change(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path,
        _sample("au.jpg", label=0, boxes=()),
        _sample("unknown.jpg", label=None),
        _sample("empty.jpg"),
    )
    boxes = _coco(tmp_path, {"au.jpg": [BOX], "unknown.jpg": [BOX], "empty.jpg": []})
    status, samples = _run(manifest, boxes)
    assert status == 3
    assert [(s.label, s.boxes) for s in samples.values()] == [(0, ()), (None, (BOX,)), (1, ())]
    assert [reason for reason, _ in _errors(manifest)] == ["authentic_has_boxes"]


def test_listed_images_without_shapes_can_be_kept_apart(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, _sample("x.jpg"), _sample("y.jpg"))
    boxes = _coco(tmp_path, {"x.jpg": [], "y.jpg": [BOX]})
    assert _run(manifest, boxes)[1]["x.jpg"].boxes == ()
    status, samples = _run(manifest, boxes, "--empty", "unannotated")
    assert status == 0
    assert [s.boxes for s in samples.values()] == [None, (BOX,)]


def test_labels_choose_and_a_misspelt_one_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = _manifest(tmp_path, _sample("x.jpg"))
    boxes = _coco(tmp_path, {"x.jpg": [BOX]})
    assert _run(manifest, boxes, "--labels", "forgd", "sky")[0] == 1
    assert "'forged'" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
    assert _run(manifest, boxes, "--labels", "forged")[1]["x.jpg"].boxes == (BOX,)


def test_a_bad_file_of_a_folder_does_not_lose_the_others(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, _sample("x.jpg"))
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "x.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    (folder / "link.txt").symlink_to("/etc/hostname")
    (folder / ".hidden.txt").write_text("?")
    status, samples = _run(manifest, folder, kind="yolo")
    assert status == 3
    assert samples["x.jpg"].boxes == (Box(30, 20, 90, 60),)
    assert [reason for reason, _ in _errors(manifest)] == ["bad_file", "bad_file"]
    assert _run(manifest, folder / "bad.txt", kind="yolo")[0] == 1
    assert _run(manifest, tmp_path / "nowhere", kind="yolo")[0] == 1
    assert _run(manifest, folder, kind="voc")[0] == 1  # none of the files is XML


def test_a_box_that_moved_by_less_than_a_thousandth_is_the_old_one(tmp_path: Path) -> None:
    old: dict[str, Any] = {"boxes": (Box(*BOX),), "box_origin": "cam", "pseudo_mask": "p.png"}
    manifest = _manifest(tmp_path, *(_sample(name, **old) for name in ("x.jpg", "y.jpg", "z.jpg")))
    near, far = ((BOX[0] + shift, *BOX[1:]) for shift in (9e-4, 2e-3))
    boxes = _coco(tmp_path, {"x.jpg": [near], "y.jpg": [far], "z.jpg": [BOX, BOX]})
    _, samples = _run(manifest, boxes)
    assert samples["x.jpg"] == _sample("x.jpg", **old)
    assert [s.pseudo_mask for s in samples.values()] == ["p.png", None, None]
    assert [s.box_origin for s in samples.values()] == ["cam", "human", "human"]


def test_roots_notes_and_pseudo_masks(tmp_path: Path) -> None:
    old: dict[str, Any] = {"boxes": (Box(*BOX),), "box_origin": "mask", "pseudo_mask": "p.png"}
    manifest = _manifest(tmp_path, *(_sample(name, **old) for name in ("x.jpg", "y.jpg", "z.jpg")))
    boxes = _coco(tmp_path, {"x.jpg": [(0, 0, 9, 9)], "y.jpg": [BOX]})
    out = tmp_path / "deep" / "out.jsonl"
    status, samples = _run(manifest, boxes, out=out)
    assert status == 0
    assert [s.pseudo_mask for s in samples.values()] == [None, "p.png", "p.png"]  # x has new boxes
    assert [s.box_origin for s in samples.values()] == ["human", "mask", "mask"]
    written = read_manifest(out)
    assert written.header.notes["dataset"] == "d"
    assert written.header.notes["boxes"]["format"] == "coco"
    wanted = read_manifest(manifest).image_path(written.samples[0])
    assert written.image_path(written.samples[0]).resolve() == wanted.resolve()
    assert (out.parent / written.header.pseudo_root).resolve() == tmp_path / "pseudo"


def test_nothing_is_erased_by_annotations_that_belong_to_no_image(tmp_path: Path) -> None:
    old = _sample("x.jpg", boxes=(Box(*BOX),), box_origin="human", pseudo_mask="p.png")
    manifest = _manifest(tmp_path, old, _sample("y.jpg"))
    boxes = _coco(tmp_path, {"x.jpg": [], "y.jpg": [BOX]})
    content = json.loads(boxes.read_text())
    content["annotations"][0]["image_id"] = 77
    boxes.write_text(json.dumps(content))
    status, samples = _run(manifest, boxes)
    assert status == 3
    assert samples["x.jpg"] == old
    assert samples["y.jpg"].boxes is None
    assert len(_errors(manifest)) == 1


def test_a_box_over_the_edge_is_cut_with_a_note(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, _sample("x.jpg"))
    boxes = _coco(tmp_path, {"x.jpg": [BOX, (100, 60, 127, 84)]})
    status, samples = _run(manifest, boxes)
    assert status == 0
    assert samples["x.jpg"].boxes == (Box(*BOX), Box(100, 60, 120, 80))
    assert read_manifest(tmp_path / "out.jsonl").header.notes["boxes"]["clipped"] == 1


def _turned_photograph(tmp_path: Path) -> Path:
    """A manifest of one image that is stored turned: 120 x 80, shown 80 x 120."""
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (SIZE[1], SIZE[0]), "grey").save(tmp_path / "photos" / "x.jpg", exif=exif)
    return _manifest(tmp_path, _sample("x.jpg"))


def test_boxes_of_a_turned_photograph_need_the_view(tmp_path: Path) -> None:
    manifest = _turned_photograph(tmp_path)
    boxes = _coco(tmp_path, {"x.jpg": [BOX]})
    status, samples = _run(manifest, boxes)
    assert (status, samples["x.jpg"].boxes) == (3, None)
    assert [reason for reason, _ in _errors(manifest)] == ["orientation"]
    assert _run(manifest, boxes, "--view", "stored")[1]["x.jpg"].boxes == (BOX,)
    content = json.loads(boxes.read_text())
    content["images"][0] |= {"width": SIZE[0], "height": SIZE[1]}
    content["annotations"][0]["bbox"] = [10, 20, 30, 50]
    boxes.write_text(json.dumps(content))
    status, samples = _run(manifest, boxes, "--view", "upright")
    assert (status, samples["x.jpg"].boxes) == (0, ((20, 40, 70, 70),))


def test_bare_names_join_when_asked(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, _sample("tampered/x.jpg"))
    boxes = _coco(tmp_path, {"data/x.jpg": [BOX]})
    status, samples = _run(manifest, boxes)
    assert (status, samples["tampered/x.jpg"].boxes) == (3, None)
    assert "--join name" in _errors(manifest)[0][1]
    status, samples = _run(manifest, boxes, "--join", "name")
    assert (status, samples["tampered/x.jpg"].boxes) == (0, (BOX,))


def test_what_yolo_lines_are_belongs_to_yolo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = _manifest(tmp_path, _sample("x.jpg"))
    (tmp_path / "x.txt").write_text("0 0.5 0.5 0.5 0.5 0.9 3\n")
    status, samples = _run(manifest, tmp_path / "x.txt", "--yolo", "tracks", kind="yolo")
    assert (status, samples["x.jpg"].boxes) == (0, (Box(30, 20, 90, 60),))
    assert _run(manifest, _coco(tmp_path, {}), "--yolo", "tracks")[0] == 1
    assert "--yolo has no effect with --format coco" in capsys.readouterr().err


def test_a_name_of_a_million_letters_is_one_rejection(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, _sample("x.jpg"))
    boxes = _coco(tmp_path, {"x.jpg": [BOX], "y" * 10**6: [BOX]})
    status, samples = _run(manifest, boxes)
    assert (status, samples["x.jpg"].boxes) == (3, (BOX,))
    assert max(len(message) for _, message in _errors(manifest)) < 1000


@pytest.mark.parametrize("name", ["boxes.json", "."])
def test_a_manifest_replaces_no_annotations(name: str, tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, _sample("a.jpg"))
    drawn = _coco(tmp_path, {"a.jpg": [(1, 1, 9, 9)]})
    before = drawn.read_bytes()
    assert _run(manifest, drawn, out=tmp_path / name)[0] == 1
    assert drawn.read_bytes() == before


def test_fractions_are_not_taken_for_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = _manifest(tmp_path, _sample("a.jpg"), _sample("b.jpg"))
    fractions = _coco(tmp_path, {"a.jpg": [(0.1, 0.1, 0.5, 0.6)], "b.jpg": [(0, 0, 1, 1)]})
    assert _run(manifest, fractions)[0] == 1
    assert "all 2 boxes lie within the first pixel" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
    pixels = _coco(tmp_path, {"a.jpg": [(0.1, 0.1, 0.5, 0.6)], "b.jpg": [BOX]})
    assert _run(manifest, pixels)[0] == 0
