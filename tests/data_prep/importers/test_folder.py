import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest
from data_prep.__main__ import main
from tests.helpers.data import make_folder, mask_file
from tests.helpers.imports import by_id, errors
from tests.helpers.trees import mask, photo, region


def _import(source: Path, out: Path, *more: str) -> int:
    return main(
        ["import", "--dataset", "folder", "--source", str(source), "--out", str(out), *more]
    )


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Two forgeries with masks, one image with an empty mask, one without, one authentic."""
    root = tmp_path / "own"
    for number, bright in enumerate((region("a"), region("b"), None, None)):
        photo(root / "photos" / f"cam {number}" / "x.jpg", bright)
        if number < 3:
            white = region("") & False if bright is None else bright
            mask(root / "truth" / f"cam {number}" / "x_gt.png", white)
    photo(root / "real" / "y.JPG")
    return root


PATTERNS = ("--images", "photos/{id}.jpg", "--masks", "truth/{id}_gt.png")


def test_patterns_join_images_and_masks_by_id(own: Path, tmp_path: Path) -> None:
    assert _import(own, tmp_path / "m.jsonl", *PATTERNS, "--authentic", "real/{id}.jpg") == 0
    manifest = read_manifest(tmp_path / "m.jsonl")
    assert {sample.id: (sample.label, sample.boxes) for sample in manifest.samples} == {
        "own/photos/cam 0/x": (1, None),
        "own/photos/cam 1/x": (1, None),
        "own/photos/cam 2/x": (0, ()),  # its mask marks nothing
        "own/photos/cam 3/x": (None, None),
        "own/real/y": (0, ()),
    }
    for sample, key in zip(manifest.samples, "ab", strict=False):
        assert np.array_equal(images.read_mask(mask_file(manifest, sample)), region(key))
    assert {s.mask for s in manifest.samples if s.label != 1} == {None}


def test_what_matches_no_pattern_is_listed(own: Path, tmp_path: Path) -> None:
    (own / "photos" / "cam 0" / "x.jpg").unlink()
    assert _import(own, tmp_path / "m.jsonl", *PATTERNS) == 3
    assert errors(tmp_path / "m.jsonl") == {
        f"{own}/truth/cam 0/x_gt.png": "no_image",
        f"{own}/real/y.JPG": "unmatched",
    }
    assert "matches none of: photos/" in (tmp_path / "m.errors.jsonl").read_text()


def test_a_mask_of_what_is_said_to_be_authentic_is_named(own: Path, tmp_path: Path) -> None:
    (own / "truth" / "y_gt.png").write_bytes((own / "truth" / "cam 0" / "x_gt.png").read_bytes())
    assert _import(own, tmp_path / "m.jsonl", *PATTERNS, "--authentic", "real/{id}.jpg") == 3
    (row,) = (tmp_path / "m.errors.jsonl").read_text().splitlines()
    assert "real/y.JPG is authentic by --authentic, so the mask is not used" in row


def test_stars_in_a_row_are_one(own: Path, tmp_path: Path) -> None:
    patterns = ("--images", f"photos/{'*' * 40}none{{id}}.jpg")
    assert _import(own, tmp_path / "m.jsonl", *patterns) == 1  # at once


def test_masks_beside_their_images_are_no_images(tmp_path: Path) -> None:
    photo(tmp_path / "d" / "x.png", region("x"))
    mask(tmp_path / "d" / "x_gt.png", region("x"))
    patterns = ("--images", "{id}.*", "--masks", "{id}_gt.png")
    assert _import(tmp_path / "d", tmp_path / "m.jsonl", *patterns) == 0
    (sample,) = read_manifest(tmp_path / "m.jsonl").samples
    assert (sample.id, sample.label, sample.mask) == ("d/x", 1, "x_gt.png")


def test_boxes_of_a_table_and_of_coco_say_that_an_image_is_manipulated(
    own: Path, tmp_path: Path
) -> None:
    rows = "filename,xmin,ymin,xmax,ymax\ncam 3/x.jpg,1,2,30,20.5\nreal/y.JPG,,,,\n"
    (tmp_path / "boxes.csv").write_text(rows)
    size = {"width": 48, "height": 32}
    coco = {
        "images": [{"id": 1, "file_name": "photos/cam 3/x.jpg"} | size],
        "annotations": [{"image_id": 1, "bbox": [1, 2, 29, 18.5]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    for name in ("boxes.csv", "boxes.json"):
        words = ("--authentic", "real/{id}.jpg", "--boxes", str(tmp_path / name))
        assert _import(own, tmp_path / "m.jsonl", *PATTERNS, *words) == 0
        samples = by_id(read_manifest(tmp_path / "m.jsonl"))
        assert samples["photos/cam 3/x"].label == 1
        boxes = {key: list(sample.boxes or ()) for key, sample in samples.items()}
        assert boxes["photos/cam 3/x"] == [(1, 2, 30, 20.5)]
        assert boxes["real/y"] == []


def test_a_table_of_paths(own: Path, tmp_path: Path) -> None:
    (own / "list.csv").write_text(
        "image,mask,label,split,group,kind\n"
        "photos/cam 0/x.jpg,truth/cam 0/x_gt.png,,val,g,splice\n"
        "photos/cam 2/x.jpg,truth/cam 2/x_gt.png,,,,\n"
        "photos/cam 3/x.jpg,,,,,\n"
        "real/y.JPG,,authentic,,,\n"
        "real/z.jpg,,0,,,\n"
        "real/y.JPG,,maybe,,,\n"
    )
    assert _import(own / "list.csv", tmp_path / "m.jsonl") == 3
    assert errors(tmp_path / "m.jsonl") == {
        f"{own}/list.csv#6": "missing",
        f"{own}/list.csv#7": "bad_row",
    }
    samples = by_id(read_manifest(tmp_path / "m.jsonl"))
    first = samples["photos/cam 0/x"]
    assert (first.label, first.split, first.group, first.kind) == (1, "val", "g", "splice")
    labels = {key: sample.label for key, sample in samples.items()}
    assert labels == {"photos/cam 0/x": 1, "photos/cam 2/x": 0, "photos/cam 3/x": None, "real/y": 0}


def test_photographs_alone_are_a_dataset_of_unknown_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/IMG 1.jpg", "a/IMG 1.png", "b.tif"):
        photo(tmp_path / "d" / name)
    (tmp_path / "d" / "new.heic").write_bytes(b"an iPhone's")
    (tmp_path / "d" / "notes.txt").write_text("no image")
    assert _import(tmp_path / "d", tmp_path / "m.jsonl") == 3
    assert errors(tmp_path / "m.jsonl") == {f"{tmp_path}/d/new.heic": "unknown_format"}
    samples = by_id(read_manifest(tmp_path / "m.jsonl"))
    assert sorted(samples) == ["a/IMG 1.jpg", "a/IMG 1.png", "b"]
    assert {(sample.label, sample.boxes) for sample in samples.values()} == {(None, None)}
    assert "unknown label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--images", "photos/*.jpg"), "must contain {id} once"),
        (("--masks", "truth/{id}.png"), "--masks needs --images"),
        (("--images", "{id}.jpg", "--boxes", "boxes.xml"), "must be COCO (.json) or a table"),
        (("--images", "nowhere/{id}.jpg"), "nothing of folder (nowhere/{id}.jpg)"),
    ],
)
def test_wrong_patterns_are_one_clear_line(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert _import(own, tmp_path / "m.jsonl", *words) == 1
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not (tmp_path / "m.jsonl").exists()


def test_a_zip_in_the_layout_is_read_too(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 2, 1)
    with zipfile.ZipFile(tmp_path / "src.zip", "w") as stream:
        for path in source.rglob("*.*"):
            stream.write(path, path.relative_to(source))
    assert _import(tmp_path / "src.zip", tmp_path / "m.jsonl") == 0
    samples = read_manifest(tmp_path / "m.jsonl").samples
    assert [len(sample.boxes or ()) for sample in samples] == [1, 1, 0]
    assert [sample.mask is not None for sample in samples] == [True, True, False]


def test_rows_in_are_rows_out(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 5, 3)
    assert _import(source, tmp_path / "out" / "m.jsonl", "--split", "val", "--name", "made") == 0
    manifest = read_manifest(tmp_path / "out" / "m.jsonl")
    assert [s.label for s in manifest.samples] == [1] * 5 + [0] * 3
    assert {s.split for s in manifest.samples} == {"val"}
    assert {s.kind for s in manifest.samples} == {"splice", "copymove", "removal", None}
    assert all(len(s.boxes or ()) == s.label for s in manifest.samples)
    assert all(manifest.image_path(s).is_file() for s in manifest.samples)
    assert not list((tmp_path / "out").glob("*errors*"))


def test_every_bad_file_is_listed_once_and_the_rest_goes_on(tmp_path: Path) -> None:
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


def test_a_mask_of_another_size_is_rejected(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 2, 0)
    bad = sorted((source / "masks").iterdir())[0]
    images.write_png(bad, np.zeros((64, 95), np.uint8))
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert "size_mismatch" in (tmp_path / "m.errors.jsonl").read_text()


def test_boxes_drawn_on_a_rotated_copy_are_rejected(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 2, 0)
    coco = json.loads((source / "boxes.json").read_text())
    coco["images"][0] |= {"width": 64, "height": 96}
    coco["annotations"][0]["bbox"] = [1, 1, 5, 5]
    (source / "boxes.json").write_text(json.dumps(coco))
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert "EXIF" in (tmp_path / "m.errors.jsonl").read_text()
    boxes = [sample.boxes for sample in read_manifest(tmp_path / "m.jsonl").samples]
    assert sorted(found is None for found in boxes) == [False, True]


def reasons(out: Path) -> list[str]:
    lines = out.with_name(f"{out.stem}.errors.jsonl").read_text().splitlines()
    return [json.loads(line)["reason"] for line in lines]


def test_an_authentic_image_with_boxes_is_a_contradiction(tmp_path: Path) -> None:
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


def test_verify_rejects_a_mask_that_marks_nothing(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 2, 1)
    images.write_png(min((source / "masks").iterdir()), np.zeros((64, 96), np.uint8))
    assert _import(source, tmp_path / "m.jsonl") == 0
    assert _import(source, tmp_path / "m.jsonl", "--verify", "true") == 3
    assert reasons(tmp_path / "m.jsonl") == ["empty_mask"]


def test_a_backslash_does_not_lose_the_rest(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 1, 1)
    photo = next((source / "authentic").iterdir())
    photo.with_name("a\\b.jpg").write_bytes(photo.read_bytes())
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert reasons(tmp_path / "m.jsonl") == ["bad_name"]
    assert len(read_manifest(tmp_path / "m.jsonl").samples) == 2


def test_a_name_that_is_no_text_is_rejected_and_the_manifest_stays_readable(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 1, 1)
    photo = next((source / "authentic").iterdir())
    for name in (b"a\xff.jpg", "b\u2028.jpg".encode(), "\u00fc\u4e2d\u6587.jpg".encode()):
        target = os.path.join(os.fsencode(source / "authentic"), name)  # noqa: PTH118
        with open(target, "wb") as stream:  # noqa: PTH123
            stream.write(photo.read_bytes())
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert (tmp_path / "m.errors.jsonl").read_text().count("bad_name") == 2
    assert len(read_manifest(tmp_path / "m.jsonl").samples) == 3


def test_unannotated_is_not_the_same_as_authentic(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 2, 1)
    coco = json.loads((source / "boxes.json").read_text())
    coco["images"], coco["annotations"] = coco["images"][:1], coco["annotations"][:1]
    (source / "boxes.json").write_text(json.dumps(coco))
    assert _import(source, tmp_path / "m.jsonl") == 0
    by_label = {(s.label, s.boxes is None) for s in read_manifest(tmp_path / "m.jsonl").samples}
    assert by_label == {(1, False), (1, True), (0, False)}


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["nonsense"]) == 2
    assert _import(tmp_path / "nowhere", tmp_path / "m.jsonl") == 1
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert _import(tmp_path / "empty", tmp_path / "m.jsonl") == 1
    assert "tampered" in capsys.readouterr().err
    assert _import(tmp_path, tmp_path / "m.jsonl", "--splt", "val") == 2
    assert "splt" in capsys.readouterr().err


def _write_boxes(source: Path, *boxes: list[float]) -> None:
    """boxes.json of the first tampered image alone."""
    name = min((source / "tampered").iterdir()).relative_to(source).as_posix()
    image = {"id": 1, "file_name": name, "width": 96, "height": 64}
    annotations = [{"image_id": "1", "bbox": box} for box in boxes]
    (source / "boxes.json").write_text(json.dumps({"images": [image], "annotations": annotations}))


@pytest.mark.parametrize(
    ("bbox", "boxes", "clipped"),
    [
        ([1, 1, 3.5, 4.25], ((1, 1, 4.5, 5.25),), 0),
        ([-1.5, 0, 5, 5], ((0, 0, 3.5, 5),), 0),
        ([-3, 0, 5, 5], ((0, 0, 2, 5),), 1),
        ([1, 1, 0, 4], None, 0),
        ([-9, 1, 3, 4], None, 0),
        ([1, 1, 3], None, 0),
    ],
)
def test_a_box_is_cut_or_the_boxes_of_its_image_are_unknown(
    tmp_path: Path, bbox: list[float], boxes: tuple[tuple[float, ...], ...] | None, clipped: int
) -> None:
    source = make_folder(tmp_path / "src", 1, 0)
    _write_boxes(source, bbox)
    assert _import(source, tmp_path / "m.jsonl") == (3 if boxes is None else 0)
    manifest = read_manifest(tmp_path / "m.jsonl")
    assert manifest.samples[0].boxes == boxes
    assert manifest.header.notes["clipped_boxes"] == clipped


def test_corners_for_width_and_height_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_folder(tmp_path / "src", 1, 0)
    _write_boxes(source, [60, 30, 90, 60], [1, 1, 20, 20])
    assert _import(source, tmp_path / "m.jsonl") == 1
    assert "x, y, width, height" in capsys.readouterr().err


def test_the_origin_of_boxes_is_kept_or_null(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 2, 0)
    assert _import(source, tmp_path / "m.jsonl") == 0
    assert {s.box_origin for s in read_manifest(tmp_path / "m.jsonl").samples} == {None}
    coco = json.loads((source / "boxes.json").read_text())
    coco["annotations"][0]["attributes"] = {"box_origin": "cam"}
    (source / "boxes.json").write_text(json.dumps(coco))
    assert _import(source, tmp_path / "m.jsonl") == 0
    assert {s.box_origin for s in read_manifest(tmp_path / "m.jsonl").samples} == {None, "cam"}


def test_a_turned_photograph_needs_the_view_of_its_boxes(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 1, 0)
    _write_boxes(source, [10, 20, 30, 8])
    path = next((source / "tampered").iterdir())
    exif = Image.Exif()
    exif[274] = 3
    with Image.open(path) as picture:
        picture.save(path, exif=exif)
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert reasons(tmp_path / "m.jsonl") == ["orientation"]
    assert read_manifest(tmp_path / "m.jsonl").samples[0].boxes is None
    for view, box in (("stored", (10, 20, 40, 28)), ("upright", (56, 36, 86, 44))):
        assert _import(source, tmp_path / "m.jsonl", "--view", view) == 0
        assert read_manifest(tmp_path / "m.jsonl").samples[0].boxes == (box,)


def test_masks_under_another_name_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_folder(tmp_path / "src", 2, 1)
    (source / "masks").rename(source / "mask")
    (source / "Thumbs.db").write_bytes(b"what Windows leaves")
    assert _import(source, tmp_path / "m.jsonl") == 0
    said = capsys.readouterr()
    assert "2 manipulated, 0 masks" in said.out
    assert "no manipulated image has a mask" in said.err
    assert "not read: mask/;" in said.err


def test_a_mask_that_is_no_image_is_listed(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 1, 1)
    path = next((source / "masks").iterdir())
    np.savez(path.with_suffix(".npz"), images.read_mask(path))
    path.unlink()
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert reasons(tmp_path / "m.jsonl") == ["unknown_format"]


def test_a_source_of_nothing_but_unusable_images_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_folder(tmp_path / "src", 0, 2)
    for path in (source / "authentic").iterdir():
        path.write_bytes(b"no image")
    assert _import(source, tmp_path / "m.jsonl") == 1
    said = capsys.readouterr().err
    assert "no image can be used; 2 rejected, the first: " in said
    assert len(reasons(tmp_path / "m.jsonl")) == 2
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize("folder", ["tampered", "masks"])
def test_a_folder_that_leads_out_through_a_link_is_rejected_at_the_import(
    tmp_path: Path, folder: str
) -> None:
    """A training would reject each of its images."""
    source = make_folder(tmp_path / "src", 2, 1)
    (source / folder).rename(tmp_path / "elsewhere")
    (source / folder).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert _import(source, tmp_path / "m.jsonl") == 3
    errors = (tmp_path / "m.errors.jsonl").read_text()
    assert "is a link to a folder" in errors
    left = read_manifest(tmp_path / "m.jsonl").samples
    assert len(left) == (1 if folder == "tampered" else 3)
    assert all(sample.mask is None for sample in left)


def test_a_name_of_a_million_letters_is_one_rejection(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 1, 0)
    coco = json.loads((source / "boxes.json").read_text())
    for number, name in enumerate(("x" * 10**6, "y" * 4000, "other/z.jpg")):
        coco["images"].append({"id": f"n{number}", "file_name": name, "width": 9, "height": 9})
    (source / "boxes.json").write_text(json.dumps(coco))
    assert _import(source, tmp_path / "m.jsonl") == 3
    assert sorted(reasons(tmp_path / "m.jsonl")) == ["bad_annotation", "no_image", "no_image"]
    assert len(read_manifest(tmp_path / "m.jsonl").samples[0].boxes or ()) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": 1, "annotations": []}', "NaN"])
def test_what_is_not_coco_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    source = make_folder(tmp_path / "src", 1, 0)
    (source / "boxes.json").write_text(text)
    assert _import(source, tmp_path / "m.jsonl") == 1
    message = capsys.readouterr().err
    assert "boxes.json" in message
    assert message.count("\n") == 1


def test_boxes_agree_with_pycocotools(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "src", 4, 0)
    reference = COCO(str(source / "boxes.json"))
    assert _import(source, tmp_path / "m.jsonl") == 0
    found = {
        sample.image: sample.boxes or () for sample in read_manifest(tmp_path / "m.jsonl").samples
    }
    for image in reference.loadImgs(reference.getImgIds()):
        expected = [a["bbox"] for a in reference.loadAnns(reference.getAnnIds(image["id"]))]
        boxes = [[b.x0, b.y0, b.x1 - b.x0, b.y1 - b.y0] for b in found[image["file_name"]]]
        assert boxes == [pytest.approx(box) for box in expected]


def as_hub_cache(folder: Path, blobs: Path) -> None:
    """Every file becomes a link to a file named by its hash, as in the cache of the Hub."""
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        path.rename(blobs / f"{number:064x}")
        path.symlink_to(blobs / f"{number:064x}")


def test_links_are_followed_when_asked(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "cache" / "snapshots" / "abc", 2, 1)
    assert _import(source, tmp_path / "plain.jsonl") == 0
    plain = read_manifest(tmp_path / "plain.jsonl").samples
    expected = [(s.id, s.label, s.boxes, s.image_sha256) for s in plain]
    as_hub_cache(source, tmp_path / "cache" / "blobs")
    assert _import(source, tmp_path / "m.jsonl") == 1
    assert set(reasons(tmp_path / "m.jsonl")) == {"not_a_file"}
    words = ("--follow_links", "true", "--verify", "true")
    assert _import(source, tmp_path / "m.jsonl", *words) == 0
    manifest = read_manifest(tmp_path / "m.jsonl")
    assert [(s.id, s.label, s.boxes, s.image_sha256) for s in manifest.samples] == expected
    for sample in manifest.samples:  # every later job can open them
        assert manifest.image_path(sample).parent.resolve() == tmp_path / "cache" / "blobs"
        images.read_image(manifest.image_path(sample))
