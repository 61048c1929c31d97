import json
import os

import numpy as np
import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest
from data_prep.__main__ import main
from data_prep.annotations.coco import read_coco
from tests.helpers.data import make_folder


def _import(source, out, *more) -> int:
    return main(
        ["import", "--dataset", "folder", "--source", str(source), "--out", str(out), *more]
    )


def test_rows_in_are_rows_out(tmp_path):
    source = make_folder(tmp_path / "src", 5, 3)
    assert _import(source, tmp_path / "out" / "m.jsonl", "--split", "val", "--name", "made") == 0
    manifest = read_manifest(tmp_path / "out" / "m.jsonl")
    assert [s.label for s in manifest.samples] == [1] * 5 + [0] * 3
    assert {s.split for s in manifest.samples} == {"val"}
    assert {s.kind for s in manifest.samples} == {"splice", "copymove", "removal", None}
    assert all(len(s.boxes) == s.label for s in manifest.samples)
    assert all(manifest.image_path(s).is_file() for s in manifest.samples)
    assert not list((tmp_path / "out").glob("*errors*"))


def test_every_bad_file_is_listed_once_and_the_rest_goes_on(tmp_path):
    source = make_folder(tmp_path / "src", 5, 3)
    tampered = sorted((source / "tampered").iterdir())
    tampered[0].write_bytes(b"")
    tampered[1].write_text("hello")
    os.mkfifo(source / "authentic" / "pipe.jpg")
    (source / "masks" / "orphan.png").write_bytes(b"x")
    twin = tampered[3].with_suffix(".png")
    twin.write_bytes(tampered[3].read_bytes())
    assert _import(source, tmp_path / "m.jsonl") == 3
    rows = [json.loads(line) for line in (tmp_path / "m.errors.jsonl").read_text().splitlines()]
    reasons = {os.path.basename(row["path"]): row["reason"] for row in rows}  # noqa: PTH119
    assert len(rows) == 5
    assert reasons[tampered[0].name] == "empty"
    assert reasons["pipe.jpg"] == "not_a_file"
    assert reasons["orphan.png"] == "no_image"
    assert set(reasons) & {twin.name, tampered[3].name}
    assert len(read_manifest(tmp_path / "m.jsonl").samples) == 6


def test_a_mask_of_another_size_is_rejected(tmp_path):
    source = make_folder(tmp_path / "src", 2, 0)
    mask = sorted((source / "masks").iterdir())[0]
    images.write_png(mask, np.zeros((64, 95), np.uint8))
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert "size_mismatch" in (tmp_path / "m.errors.jsonl").read_text()


def test_boxes_drawn_on_a_rotated_copy_are_rejected(tmp_path):
    source = make_folder(tmp_path / "src", 2, 0)
    coco = json.loads((source / "boxes.json").read_text())
    coco["images"][0] |= {"width": 64, "height": 96}
    coco["annotations"][0]["bbox"] = [1, 1, 5, 5]
    (source / "boxes.json").write_text(json.dumps(coco))
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert "EXIF" in (tmp_path / "m.errors.jsonl").read_text()
    assert len(read_manifest(tmp_path / "m.jsonl").samples) == 1


def reasons(out) -> list[str]:
    lines = out.with_name(f"{out.stem}.errors.jsonl").read_text().splitlines()
    return [json.loads(line)["reason"] for line in lines]


def test_an_authentic_image_with_boxes_is_a_contradiction(tmp_path):
    source = make_folder(tmp_path / "src", 2, 2)
    coco = json.loads((source / "boxes.json").read_text())
    for number, path in enumerate(sorted((source / "authentic").iterdir()), start=90):
        name = path.relative_to(source).as_posix()
        coco["images"].append({"id": number, "file_name": name, "width": 96, "height": 64})
    coco["annotations"].append({"image_id": 90, "bbox": [1, 1, 5, 5]})
    (source / "boxes.json").write_text(json.dumps(coco))
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert reasons(tmp_path / "m.jsonl") == ["authentic_has_boxes"]
    samples = read_manifest(tmp_path / "m.jsonl").samples
    assert [sample.boxes for sample in samples if not sample.label] == [()]


def test_verify_rejects_a_mask_that_marks_nothing(tmp_path):
    source = make_folder(tmp_path / "src", 2, 1)
    images.write_png(min((source / "masks").iterdir()), np.zeros((64, 96), np.uint8))
    assert _import(source, tmp_path / "m.jsonl") == 0
    assert _import(source, tmp_path / "m.jsonl", "--verify", "true") == 3
    assert reasons(tmp_path / "m.jsonl") == ["empty_mask"]


def test_a_backslash_does_not_lose_the_rest(tmp_path):
    source = make_folder(tmp_path / "src", 1, 1)
    photo = next((source / "authentic").iterdir())
    photo.with_name("a\\b.jpg").write_bytes(photo.read_bytes())
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert reasons(tmp_path / "m.jsonl") == ["bad_name"]
    assert len(read_manifest(tmp_path / "m.jsonl").samples) == 2


def test_a_name_that_is_no_text_is_rejected_and_the_manifest_stays_readable(tmp_path):
    source = make_folder(tmp_path / "src", 1, 1)
    photo = next((source / "authentic").iterdir())
    for name in (b"a\xff.jpg", "b\u2028.jpg".encode(), "\u00fc\u4e2d\u6587.jpg".encode()):
        target = os.path.join(os.fsencode(source / "authentic"), name)  # noqa: PTH118
        with open(target, "wb") as stream:  # noqa: PTH123
            stream.write(photo.read_bytes())
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert (tmp_path / "m.errors.jsonl").read_text().count("bad_name") == 2
    assert len(read_manifest(tmp_path / "m.jsonl").samples) == 3


def test_unannotated_is_not_the_same_as_authentic(tmp_path):
    source = make_folder(tmp_path / "src", 2, 1)
    coco = json.loads((source / "boxes.json").read_text())
    coco["images"], coco["annotations"] = coco["images"][:1], coco["annotations"][:1]
    (source / "boxes.json").write_text(json.dumps(coco))
    assert _import(source, tmp_path / "m.jsonl") == 0
    by_label = {(s.label, s.boxes is None) for s in read_manifest(tmp_path / "m.jsonl").samples}
    assert by_label == {(1, False), (1, True), (0, False)}


def test_wrong_use(tmp_path, capsys):
    assert main([]) == 2
    assert main(["nonsense"]) == 2
    assert _import(tmp_path / "nowhere", tmp_path / "m.jsonl") == 1
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert _import(tmp_path / "empty", tmp_path / "m.jsonl") == 1
    assert "tampered" in capsys.readouterr().err
    assert _import(tmp_path, tmp_path / "m.jsonl", "--splt", "val") == 2
    assert "splt" in capsys.readouterr().err


COCO = {"images": [{"id": 1, "file_name": "a.jpg", "width": 10, "height": 8}], "annotations": []}


@pytest.mark.parametrize(
    ("bbox", "kept"),
    [
        ([1, 1, 3.5, 4.25], [(1, 1, 4.5, 5.25)]),
        ([-1.5, 0, 5, 5], [(0, 0, 3.5, 5)]),
        ([0, 0, 11.9, 8], [(0, 0, 10, 8)]),
        ([-3, 0, 5, 5], []),
        ([1, 1, 0, 4], []),
        ([1, 1, -3, 4], []),
        ([1, 1, 3], []),
        (["x", 1, 3, 4], []),
        (None, []),
        ([1, 1, 1e300, 4], []),
    ],
)
def test_one_bad_box_does_not_lose_the_rest(tmp_path, bbox, kept):
    good = {"image_id": 1, "bbox": [2, 2, 2, 2]}
    coco = COCO | {"annotations": [good, {"image_id": 1, "bbox": bbox}, {"image_id": 9}, good]}
    (tmp_path / "b.json").write_text(json.dumps(coco))
    boxes, rejected = read_coco(tmp_path / "b.json")
    assert boxes == {"a.jpg": ((8, 10), ((2, 2, 4, 4), *kept, (2, 2, 4, 4)))}
    assert len(rejected) == 2 - len(kept)
    assert "annotations[2]" in str(rejected[-1])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": 1, "annotations": []}', "NaN"])
def test_what_is_not_coco_is_a_clear_error(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(UserError, match=r"b\.json"):
        read_coco(tmp_path / "b.json")


def test_boxes_agree_with_pycocotools(tmp_path):
    from pycocotools import coco

    source = make_folder(tmp_path / "src", 4, 0)
    reference = coco.COCO(str(source / "boxes.json"))
    boxes, _ = read_coco(source / "boxes.json")
    for image in reference.loadImgs(reference.getImgIds()):
        expected = [a["bbox"] for a in reference.loadAnns(reference.getAnnIds(image["id"]))]
        found = [[b.x0, b.y0, b.x1 - b.x0, b.y1 - b.y0] for b in boxes[image["file_name"]].boxes]
        assert found == [pytest.approx(box) for box in expected]
