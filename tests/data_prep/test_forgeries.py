import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from filelock import FileLock
from matplotlib.path import Path as Path2D
from PIL import Image
from pycocotools import mask as coco_mask

from boxpromptiml import geometry
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import (
    Header,
    read_manifest,
    relative_root,
    write_manifest,
)
from boxpromptiml.records import ImageArray, MaskArray, Sample
from boxpromptiml.synth.degradation import jpeg
from data_prep.__main__ import main

AnyArray = npt.NDArray[Any]
SIZE = (96, 144)
STILL = ["--style.copy_scale=[1,1]", "--style.splice_scale=[1,1]", "--style.rotation=0",
         "--style.feather=[0,0]", "--style.exposure=0"]  # fmt: skip


def photograph(seed: int, size: tuple[int, int] = SIZE, grey: bool = False) -> ImageArray:
    """Discs, texture and noise: something to cut out, and nothing that is flat."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(60, 180, (1, 1, 3)) + 30 * np.sin(np.arange(size[1]) / 9)[None, :, None]
    image = np.broadcast_to(image, (*size, 3)).copy()
    for _ in range(5):
        centre = tuple(int(v) for v in rng.integers(12, np.array(size[::-1]) - 12))
        colour = rng.uniform(0, 255, 3).tolist()
        cv2.circle(image, centre, int(rng.integers(8, 22)), colour, -1)
    image += rng.normal(0, 9, image.shape)
    image = np.clip(image, 0, 255).astype(np.uint8)
    return np.repeat(image[..., :1], 3, axis=2) if grey else image


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: seven PNGs, so that their pixels were never compressed; one of them grey."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(7):
        images.write_png(root / "trip" / f"p{number}.png", photograph(number, grey=number == 6))
    return root


def forge(photos: Path, out: Path, count: int = 8, *more: str) -> int:
    return main(["forgeries", f"--images={photos}", f"--out={out}", f"--count={count}", *more])


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def made(out: Path) -> Iterator[tuple[Sample, ImageArray, MaskArray, dict[str, Any]]]:
    """(sample, image, mask, provenance) of every forgery."""
    manifest = read_manifest(out / "manifest.jsonl")
    for sample in manifest.samples:
        if sample.label:
            record = json.loads((out / f"provenance/{sample.id}.json").read_text())
            image = images.read_image(manifest.image_path(sample))[0]
            path = manifest.mask_path(sample)
            assert path is not None
            yield sample, image, images.read_mask(path), record


def errors(out: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    return {Path(row["path"]).name: row["reason"] for row in rows}


@pytest.fixture(scope="module")
def made_once(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    assert forge(photos, out, 10, "--name=toy", "--split=val", "--host_quality=[40,70]") == 0
    return out


def test_what_comes_out(photos: Path, made_once: Path) -> None:
    manifest = read_manifest(made_once / "manifest.jsonl")
    assert [s.label for s in manifest.samples].count(0) == 7  # one for every host
    assert {s.split for s in manifest.samples} == {"val"}
    assert {s.dataset for s in manifest.samples} == {"toy"}
    assert errors(made_once) == {}
    hosts: dict[str, set[str]] = {}
    for sample, image, mask, record in made(made_once):
        assert image.shape[:2] == mask.shape == sample.size == SIZE
        boxes = geometry.as_array(sample.boxes or ())
        assert len(boxes) == 1
        assert mask[geometry.union_mask(boxes, SIZE)].sum() >= 0.9 * mask.sum() > 0
        assert record["kind"] == sample.kind
        assert record["donor"] is None or sample.kind != "removal"
        assert record["donor"] != record["host"] or sample.kind == "copymove"
        data = (photos / record["host"]["photo"]).read_bytes()
        assert images.decode_image(data, "")[1].sha256 == record["host"]["sha256"]
        hosts.setdefault(record["host"]["photo"], set()).add(sample.group)
    assert len(hosts) == 7
    assert all(len(groups) == 1 for groups in hosts.values())  # siblings stay together
    assert len(set.union(*hosts.values())) == 7
    for sample in manifest.samples:
        info = images.probe(manifest.image_path(sample))
        assert (info.sha256, info.size, info.format) == (sample.image_sha256, SIZE, "JPEG")
        if not sample.label:
            assert sample.boxes == ()
            assert sample.group == next(
                s.group for s in manifest.samples if f"{s.id}_authentic" == sample.id
            )


def test_photographs_of_a_folder_can_be_one_group(photos: Path, tmp_path: Path) -> None:
    assert forge(photos, tmp_path, 4, "--group_by=folder") == 0
    samples = read_manifest(tmp_path / "manifest.jsonl").samples
    assert {sample.group for sample in samples} == {"trip"}


def test_workers_do_not_change_a_byte(photos: Path, made_once: Path, tmp_path: Path) -> None:
    forge(photos, tmp_path, 10, "--name=toy", "--split=val", "--host_quality=[40,70]",
          "--num_workers=2")  # fmt: skip
    assert content(tmp_path) == content(made_once)
    forge(photos, tmp_path / "1", 2, "--seed=1")
    forge(photos, tmp_path / "2", 2, "--seed=2")
    one, other = content(tmp_path / "1"), content(tmp_path / "2")
    assert all(one[name] != other[name] for name in one if name.endswith(".jpg"))


def test_a_second_run_makes_only_what_is_missing_or_damaged(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(photos, tmp_path)
    before = content(tmp_path)
    forge(photos, tmp_path)
    assert "0 forgeries made now" in capsys.readouterr().out
    stem = "forgeries_train_00000"
    (tmp_path / f"images/{stem}0.jpg").unlink()
    (tmp_path / f"images/{stem}1_authentic.jpg").unlink()
    (tmp_path / f"masks/{stem}2.png").write_bytes(before[f"masks/{stem}2.png"][:-9])
    (tmp_path / f"provenance/{stem}3.json").write_text("{}")
    (tmp_path / "manifest.jsonl").unlink()
    (tmp_path / f"images/.{'0' * 16}.1.tmp").touch()  # of a killed run
    forge(photos, tmp_path)
    assert "4 forgeries made now" in capsys.readouterr().out
    assert content(tmp_path) == before


def test_another_setting_makes_all_anew_and_a_larger_count_only_adds(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(photos, tmp_path, 4, "--authentic=2")
    forge(photos, tmp_path, 6, "--authentic=2")
    assert "2 forgeries made now" in capsys.readouterr().out.splitlines()[-1]
    assert len(read_manifest(tmp_path / "manifest.jsonl").samples) == 8
    forge(photos, tmp_path, 6, "--authentic=2", "--style.rotation=5")
    assert "6 forgeries made now" in capsys.readouterr().out
    forge(photos, tmp_path, 6, "--authentic=2", "--style.rotation=5", "--quality=60")
    assert "6 forgeries made now" in capsys.readouterr().out


def test_outside_its_mask_a_forgery_is_its_authentic_counterpart(made_once: Path) -> None:
    """Same JPEG path: all blocks that the forgery does not reach are equal."""
    for sample, image, mask, record in made(made_once):
        path = made_once / f"images/{sample.id}_authentic.jpg"
        if not path.exists():
            continue
        same = (images.read_image(path)[0] == image).all(axis=2)
        reach = cv2.dilate(mask.astype(np.uint8), np.ones((2 * 20 + 1,) * 2, np.uint8)) > 0
        assert same[~reach].all()  # 16 for chroma blocks, 2 for the feather, 2 for upsampling
        assert same[mask].mean() < 0.2
        with Image.open(path) as one, Image.open(made_once / sample.image) as other:
            assert one.quantization == other.quantization  # type: ignore[attr-defined]
        assert 75 <= record["jpeg"]["final"] <= 98
        assert 40 <= record["jpeg"]["host"] <= 70


def errors_at(quality: int, image: ImageArray, mask: MaskArray) -> tuple[float, float]:
    """Mean change by another compression, well inside the mask and well outside."""
    change = np.abs(jpeg(image, quality).astype(int) - image).mean(axis=2)
    core = cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    near = cv2.dilate(mask.astype(np.uint8), np.ones((33, 33), np.uint8)) > 0
    return change[core].mean(), change[~near].mean()


def test_the_host_was_compressed_before_and_the_region_was_not(
    photos: Path, tmp_path: Path
) -> None:
    fractions = {"splice": "[1,0,0]", "copymove": "[0,1,0]"}
    for kind, fraction in fractions.items():
        out = tmp_path / kind
        history = ["--host_quality=60", "--quality=95", f"--style.kind_fractions={fraction}"]
        forge(photos, out, 4, *history)
        for _, image, mask, _ in made(out):
            region, host = errors_at(60, image, mask)
            assert host < 0.5 * region
    out = tmp_path / "region"
    forge(
        photos,
        out,
        4,
        "--region_quality=20",
        "--quality=99",
        "--style.kind_fractions=[0,1,0]",
        *STILL,
    )
    for sample, image, mask, record in made(out):
        assert record["jpeg"] == {"host": None, "region": 20, "final": 99}
        assert sample.kind == "copymove"
        source = images.read_image(photos / record["host"]["photo"])[0]
        aligned = placed(jpeg(source, 20), record)
        plain = placed(source, record)
        luma = np.array([0.299, 0.587, 0.114])  # the final save halves the chroma
        wrong = [np.abs((image - other)[mask] @ luma).mean() for other in (aligned, plain)]
        assert wrong[0] < 0.5 * wrong[1]


def placed(source: AnyArray, record: dict[str, Any], size: tuple[int, int] = SIZE) -> AnyArray:
    """The region of a forgery that was neither scaled nor rotated, where it was pasted."""
    x0, y0, x1, y1 = (int(v) for v in record["region"]["box"])
    if record["parameters"]["flipped"]:
        source, x0 = source[:, ::-1], source.shape[1] - x1
    patch = source[y0:y1, x0 : x0 + x1 - int(record["region"]["box"][0])]
    row, column = record["parameters"]["row"], record["parameters"]["column"]
    canvas = np.zeros((*size, *source.shape[2:]))
    canvas[row : row + patch.shape[0], column : column + patch.shape[1]] = patch
    return canvas


def coco(
    photos: Path, size: tuple[int, int] = SIZE
) -> tuple[dict[str, MaskArray], dict[str, list[dict[str, Any]]]]:
    """A COCO file with an ellipse in every photograph, once as a polygon, once as run lengths."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    truth: dict[str, MaskArray] = {}
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        y, x = 40 + number, 60 + 3 * number
        mask = ((rows - y) / 12) ** 2 + ((columns - x) / 17) ** 2 < 1
        angle = np.linspace(0, 2 * np.pi, 40)[:-1]
        polygon = np.stack([x + 17 * np.cos(angle), y + 12 * np.sin(angle)], axis=1).ravel()
        run_lengths = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        runs = np.diff(np.flatnonzero(np.diff(mask.ravel("F"), prepend=False, append=False)))
        first = int(np.flatnonzero(mask.ravel("F"))[0])
        counts = [first, *runs.tolist(), int(mask.size - first - runs.sum())]
        segmentation = (
            [polygon.tolist()],
            {"size": list(size), "counts": run_lengths["counts"].decode()},
            {"size": list(size), "counts": counts},
        )[number % 3]
        if number % 3 == 0:
            path_of = Path2D(polygon.reshape(-1, 2))  # somebody else's test of pixel centres
            centres = np.stack([columns + 0.5, rows + 0.5], axis=-1).reshape(-1, 2)
            mask = path_of.contains_points(centres).reshape(size)
        key = path.relative_to(photos).as_posix()
        truth[key] = mask
        listed.append({"id": number, "file_name": key, "height": size[0], "width": size[1]})
        annotations.append({"id": number, "image_id": number, "segmentation": segmentation})
    return truth, {"images": listed, "annotations": annotations}


@pytest.mark.parametrize("form", ["coco", "masks"])
def test_given_outlines_are_forged_and_masks_are_exact(
    photos: Path, tmp_path: Path, form: str
) -> None:
    truth, file = coco(photos)
    regions = tmp_path / "regions"
    if form == "coco":
        file["images"].append({"id": 99, "file_name": "other.png", "height": 9, "width": 9})
        regions = tmp_path / "regions.json"
        regions.write_text(json.dumps(file))
    else:
        for key, mask in truth.items():
            images.write_png(regions / key, mask.astype(np.uint8) * 255)
    kinds_drawn = "--style.kind_fractions=[0.4,0.3,0.3]"
    assert forge(photos, tmp_path / "out", 14, f"--regions={regions}", kinds_drawn, *STILL) == 0
    kinds = set()
    for sample, _, mask, record in made(tmp_path / "out"):
        assert record["region"]["from"] == "outline"
        outline = truth[(record["donor"] or record["host"])["photo"]]
        tight = geometry.from_mask(outline)
        assert tight is not None
        assert record["region"]["box"] == list(tight)
        expected = outline if sample.kind == "removal" else placed(outline, record) > 0
        np.testing.assert_array_equal(mask, expected)
        kinds.add(sample.kind)
    assert kinds == {"splice", "copymove", "removal"}


def test_a_bad_outline_is_listed_and_does_not_lose_the_rest(photos: Path, tmp_path: Path) -> None:
    _, file = coco(photos)
    bad: list[Any] = [
        None,
        [],
        [[1, 2, 3, 4]],
        [[0, 0, 5, 5, 1e9, 9]],
        [[0, 0, "x", 5, 9, 9]],
        {"size": list(SIZE), "counts": "04"},  # pycocotools would decode it from stray memory
        {"size": list(SIZE), "counts": [5, 5]},
        {"size": [9, 9], "counts": [81]},
        {"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]},
    ]
    file["annotations"] += [{"image_id": 0, "segmentation": one} for one in bad]
    file["annotations"].append({"image_id": 0, "iscrowd": 1, "segmentation": None})
    file["images"][1]["width"] += 1
    (tmp_path / "regions.json").write_text(json.dumps(file))
    out = tmp_path / "out"
    assert forge(photos, out, 7, f"--regions={tmp_path}/regions.json") == 3
    assert sorted(errors(out).values()) == ["bad_annotation"] * len(bad) + ["size_mismatch"]
    origins: dict[str, set[str]] = {}
    for _, _, _, record in made(out):
        photo = (record["donor"] or record["host"])["photo"]
        origins.setdefault(photo, set()).add(record["region"]["from"])
    assert origins.pop("trip/p1.png") == {"superpixels"}
    assert set.union(*origins.values()) == {"outline"}


def test_every_bad_photograph_is_listed_once_and_the_rest_goes_on(
    photos: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(photos, tmp_path / "photos"))
    whole = (root / "trip/p0.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "notes.txt").write_text("hello")
    (root / "twin.png").write_bytes(whole)
    (root / "link.png").symlink_to(root / "trip/p0.png")
    images.write_png(root / "tiny.png", photograph(1, (30, 90)))
    images.write_png(root / "flat.png", np.full((*SIZE, 3), 9, np.uint8))
    (root / ".hidden").write_bytes(b"")
    out = root / "out"  # what we wrote ourselves is no photograph
    assert forge(root, out, 4) == 3
    reasons = errors(out)
    assert {"twin.png", "p0.png"} & set(reasons)
    reasons = {name: why for name, why in reasons.items() if why != "duplicate"}
    assert reasons == {
        "cut.png": "truncated_or_corrupt",
        "notes.txt": "unknown_format",
        "link.png": "not_a_file",
        "tiny.png": "too_small",
        "flat.png": "featureless",
    }
    assert len(list(made(out))) == 4
    before = content(out)
    assert forge(root, out, 4) == 3
    assert content(out) == before


def test_a_photograph_that_gives_no_forgery_is_listed(tmp_path: Path) -> None:
    """A ramp looks the same after any removal."""
    for number in range(2):
        ramp = np.linspace(100, 140 - number, SIZE[1])[None, :, None]
        image = np.broadcast_to(ramp, (*SIZE, 3)).astype(np.uint8)
        images.write_png(tmp_path / f"photos/r{number}.png", image)
    assert forge(tmp_path / "photos", tmp_path / "out", 2, "--style.kind_fractions=[0,0,1]") == 3
    assert errors(tmp_path / "out") == {"r0.png": "no_forgery", "r1.png": "no_forgery"}
    assert not list(made(tmp_path / "out"))


def test_colour_never_gives_a_splice_away(photos: Path, tmp_path: Path) -> None:
    forge(photos, tmp_path, 14, "--style.kind_fractions=[1,0,0]", "--quality=100", "--authentic=0")
    hosts = set()
    for _, image, _, record in made(tmp_path):
        hosts.add(record["host"]["photo"])
        assert record["donor"]["photo"] != "trip/p6.png"
        if record["host"]["photo"] == "trip/p6.png":
            assert (image == image[..., :1]).all()
    assert "trip/p6.png" in hosts


def test_large_photographs_can_be_made_smaller_first(photos: Path, tmp_path: Path) -> None:
    truth, _ = coco(photos)
    for key, mask in truth.items():
        images.write_png(tmp_path / "masks" / key, mask.astype(np.uint8) * 255)
    forge(photos, tmp_path / "out", 5, "--max_side=108", f"--regions={tmp_path}/masks", *STILL,
          "--style.kind_fractions=[0,0,1]")  # fmt: skip
    for sample, image, mask, record in made(tmp_path / "out"):
        assert image.shape[:2] == sample.size == (72, 108)
        fine = np.kron(truth[record["host"]["photo"]], np.ones((3, 3)))  # 4 x 4 of it are a pixel
        covered = fine.reshape(72, 4, 108, 4).mean(axis=(1, 3))
        np.testing.assert_array_equal(mask, covered >= 0.5)


def test_several_folders(photos: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        images.write_png(tmp_path / name / "same.png", photograph(ord(name)))
    words = ["forgeries", "--images", f"{tmp_path}/a", f"{tmp_path}/b", f"--out={tmp_path}/out"]
    assert main([*words, "--count=2"]) == 0
    assert len({sample.group for sample, *_ in made(tmp_path / "out")}) == 2
    images.write_png(tmp_path / "masks" / "same.png", np.zeros(SIZE, np.uint8))
    assert main([*words, "--count=2", f"--regions={tmp_path}/masks"]) == 1


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--count=0", "--count"),
        ("--seed=-1", "--seed"),
        ("--quality=[90,80]", "--quality"),
        ("--host_quality=0", "--host_quality"),
        ("--name=../x", "--name"),
        ("--authentic=9", "--authentic"),
        ("--max_side=50", "--max_side"),
        ("--min_side=999", "too few"),
        ("--regions=nowhere", "nowhere"),
        ("--style.kind_fractions=[1,1,0]", "style.kind_fractions"),
        ("--style.feather=[2,1]", "style.feather"),
    ],
)
def test_a_wrong_option_is_named(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    assert forge(photos, tmp_path / "out", 8, option) in (1, 2)
    assert said in capsys.readouterr().err


def test_a_missing_folder_of_photographs_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert forge(tmp_path / "nowhere", tmp_path / "out") == 1
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_regions_of_other_photographs_are_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"images": [], "annotations": []}))
    assert forge(photos, tmp_path / "out", 8, f"--regions={tmp_path}/r.json") == 1
    assert "none of the photographs" in capsys.readouterr().err
    (tmp_path / "r.json").write_text("[1]")
    assert forge(photos, tmp_path / "out", 8, f"--regions={tmp_path}/r.json") == 1
    assert "not a JSON object" in capsys.readouterr().err


def test_a_dataset_of_somebody_else_is_not_replaced(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.jsonl").write_text("annotated by hand")
    assert forge(photos, tmp_path) == 1
    assert "manifest.jsonl: is there, and not made by" in capsys.readouterr().err
    assert content(tmp_path) == {"manifest.jsonl": b"annotated by hand"}


def test_two_jobs_do_not_write_into_one_folder(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FileLock(tmp_path / ".lock"):
        assert forge(photos, tmp_path, 2) == 1
    assert "another job" in capsys.readouterr().err


def varied_inputs(photos: Path, tmp_path: Path) -> list[str]:
    """Options that name the photographs and one forged image, each in a manifest."""
    authentic = [
        Sample(
            id=f"photos/{path.stem}", dataset="photos", split="train", group=f"scene {number % 3}",
            image=path.relative_to(photos).as_posix(), size=SIZE, label=0, boxes=(),
            image_sha256=images.probe(path).sha256,
        )
        for number, path in enumerate(sorted(photos.rglob("*.png")))
    ]  # fmt: skip
    images.write_png(tmp_path / "set/f.png", photograph(99))
    mask = np.zeros(SIZE, np.uint8)
    mask[20:60, 40:90] = 255
    images.write_png(tmp_path / "set/m.png", mask)
    forged = replace(authentic[0], id="forged/f", image="f.png", mask="m.png", label=1, boxes=None,
                     image_sha256=images.probe(tmp_path / "set/f.png").sha256)  # fmt: skip
    header = Header(image_root=relative_root(tmp_path / "photos.jsonl", photos))
    write_manifest(tmp_path / "photos.jsonl", header, authentic)
    write_manifest(tmp_path / "forged.jsonl", Header(image_root="set"), [forged])
    given = [f"--manifest={tmp_path}/photos.jsonl", f"--objects={tmp_path}/forged.jsonl"]
    return ["--recipe=varied", "--varied.sides=[128,300]", *given]


def test_varied_forgeries_name_what_they_are_made_from(photos: Path, tmp_path: Path) -> None:
    options = varied_inputs(photos, tmp_path)
    out = tmp_path / "out"
    assert main(["forgeries", f"--out={out}", "--count=12", "--authentic=5", *options]) == 0
    manifest = read_manifest(out / "manifest.jsonl")
    groups = {
        sample.id: sample.group for sample in read_manifest(tmp_path / "photos.jsonl").samples
    }
    assert [sample.label for sample in manifest.samples].count(0) == 5
    lenders = set()
    for sample in manifest.samples:
        assert sample.made_from is not None
        host, *others = sample.made_from
        assert sample.group == groups[host]
        lenders |= set(others)
        info = images.probe(manifest.image_path(sample))
        assert (info.sha256, info.size) == (sample.image_sha256, sample.size)
        if not sample.label:
            assert others == []
            continue
        record = json.loads((out / f"provenance/{sample.id}.json").read_text())
        named = [record["host"], *(r[k] for r in record["regions"] for k in ("donor", "outline"))]
        assert {one["photo"] for one in named if one} == set(sample.made_from)
    assert lenders >= {"forged/f"}
    assert lenders <= {"forged/f", *groups}


def test_workers_and_a_second_run_do_not_change_a_byte_of_varied_forgeries(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = varied_inputs(photos, tmp_path)
    one, two = tmp_path / "1", tmp_path / "2"
    assert main(["forgeries", f"--out={one}", "--count=6", *options]) == 0
    assert main(["forgeries", f"--out={two}", "--count=6", "--num_workers=2", *options]) == 0
    before = content(one)
    assert before == content(two)
    removed = sorted((two / "images").iterdir())[0]
    removed.unlink()
    (two / "manifest.jsonl").unlink()
    assert main(["forgeries", f"--out={two}", "--count=6", *options]) == 0
    assert "1 forgeries made now" in capsys.readouterr().out.splitlines()[-1]
    assert content(two) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe=varied", "--quality=80"], "the varied recipe has no"),
        (["--recipe=varied", "--style.rotation=3"], "the varied recipe has no"),
        (["--varied.alike=0.5"], "the plain recipe has no"),
        (["--recipe=varied", "--varied.kinds=[1,1,1]"], "varied.kinds must"),
    ],
)
def test_an_option_of_the_other_recipe_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert forge(photos, tmp_path / "out", 2, *options) != 0
    assert said in capsys.readouterr().err
    assert main(["forgeries", f"--out={tmp_path}/out", "--count=2"]) == 1
    assert "name photographs to forge" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
