import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import data_prep
from boxpromptiml.io import images
from boxpromptiml.io.files import sha256_file
from boxpromptiml.manifests.manifest import Header, write_manifest
from boxpromptiml.records import Box, ImageArray, Sample
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.grabcut import GrabCutTeacher
from boxpromptiml.teachers.pseudo_masks import run_job
from data_prep.__main__ import main
from tests.helpers.scenes import forged, recompressed, scene

Found = dict[str, Any]  # data.json of the report

SIZE = (48, 64)
BOX = Box(8, 8, 40, 32)


class Data:
    """A manifest whose every row is right; tests break one thing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.samples: list[Sample] = []

    def add(
        self,
        name: str = "a.jpg",
        seed: int | None = None,
        label: int | None = 1,
        image: ImageArray | None = None,
        mask: npt.NDArray[Any] | None = None,
        **changes: Any,
    ) -> Sample:
        image = scene(len(self.samples) if seed is None else seed, SIZE) if image is None else image
        path = self.root / name
        if path.suffix == ".jpg":
            images.write_jpeg(path, image, 90)
        else:
            images.write_png(path, image)
        if mask is None and label == 1:
            mask = np.zeros(SIZE, np.uint8)
            mask[10:30, 10:38] = 255
        if mask is not None:
            images.write_png(self.root / "masks" / f"{name}.png", mask)
        sample = Sample(
            id=name,
            dataset="d",
            split="train",
            group=name,
            image=name,
            size=SIZE,
            label=label,
            boxes=(BOX,) if label else (),
            mask=None if mask is None else f"masks/{name}.png",
            image_sha256=sha256_file(path),
        )
        self.samples.append(replace(sample, **changes))
        return self.samples[-1]

    def check(self, *words: str, status: int | None = None, verify: bool = True) -> Found:
        write_manifest(self.root / "m.jsonl", Header(), self.samples)
        return run(self.root, "m.jsonl", *words, status=status, verify=verify)


def run(
    root: Path,
    *manifests: str | Path,
    status: int | None = None,
    verify: bool = True,
    workers: int = 0,
) -> Found:
    words = ["check", "--manifest", *map(str, manifests), f"--out={root / 'out'}"]
    code = main([*words, f"--verify={verify}".lower(), f"--num_workers={workers}"])
    found = json.loads((root / "out" / "check.json").read_text())
    errors = [json.loads(x) for x in (root / "out" / "errors.jsonl").read_text().splitlines()]
    rejected = [f for f in found["findings"] if f["severity"] == "rejected"]
    assert errors == [{k: v for k, v in f.items() if k != "severity"} for f in rejected]
    assert code == (3 if rejected else 0)
    if status is not None:
        assert code == status
    return found


def reasons(found: Found) -> list[tuple[str, str, str]]:
    return [(f["severity"], f["reason"], os.path.basename(f["path"])) for f in found["findings"]]  # noqa: PTH119


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.chdir(tmp_path)
    return Data(tmp_path)


def test_nothing_wrong(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    data.add("a.jpg")
    data.add("b.jpg", label=0)
    found = data.check(status=0)
    assert found["findings"] == []
    assert found["images"] == 2
    assert found["classes"] == [
        {
            "dataset": "d",
            "split": "train",
            "images": 2,
            "authentic": 1,
            "manipulated": 1,
            "unlabelled": 0,
            "boxed": 1,
            "masked": 1,
            "not_annotated": 0,
        }
    ]
    out = capsys.readouterr().out
    assert "rejected: 0" in out
    assert "report.html" in out


def _corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"no image at all"), "unknown_format"),
        (lambda path: (path.unlink(), path.symlink_to("b.jpg")), "not_a_file"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hosts")), "bad_path"),
    ],
)
@pytest.mark.parametrize("verify", [False, True])
def test_a_bad_image_is_listed_once_and_the_others_are_looked_at(
    data: Data, damage: Callable[..., Any], reason: str, verify: bool
) -> None:
    data.add("a.jpg")
    data.add("b.jpg", seed=5)
    data.add("c.jpg", seed=6, boxes=None, mask=None)
    data.samples[-1] = replace(data.samples[-1], mask=None)
    damage(data.root / "a.jpg")
    assert reasons(data.check(status=3, verify=verify)) == [
        ("rejected", reason, "a.jpg"),
        ("warning", "not_annotated", "c.jpg"),
    ]


def test_damage_behind_the_header_of_a_mask_needs_verify(data: Data) -> None:
    data.add("a.jpg", image_sha256=None)
    _corrupt(data.root / "a.jpg")
    found = data.check(status=3, verify=False)
    assert reasons(found) == [("rejected", "truncated_or_corrupt", "a.jpg")]
    data.samples.clear()
    data.add("b.jpg")
    mask = data.root / "masks/b.jpg.png"
    mask.write_bytes(mask.read_bytes()[:-30])
    assert data.check(status=0, verify=False)["findings"] == []
    assert reasons(data.check(status=3)) == [("rejected", "truncated_or_corrupt", "b.jpg.png")]


def test_not_the_file_of_the_manifest(data: Data) -> None:
    data.add("a.jpg")
    data.add("b.jpg", image_sha256=None)
    images.write_jpeg(data.root / "a.jpg", scene(30, SIZE), 90)
    images.write_jpeg(data.root / "b.jpg", scene(31, (40, 64)), 90)
    assert reasons(data.check(verify=False)) == [
        ("rejected", "changed", "a.jpg"),
        ("rejected", "size_mismatch", "b.jpg"),
    ]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros(SIZE, np.uint8), "empty_mask"),
        (np.full((48, 60), 255, np.uint8), "size_mismatch"),
        (np.full(SIZE, 130, np.uint8), "mask_not_binary"),
        (scene(3, SIZE), "mask_colour"),
        (None, "missing"),
    ],
)
def test_a_mask_that_cannot_be_used(
    data: Data, mask: npt.NDArray[np.uint8] | None, reason: str
) -> None:
    sample = data.add("a.jpg", mask=mask)
    if mask is None:
        assert sample.mask is not None
        (data.root / sample.mask).unlink()
    assert reasons(data.check(status=3)) == [("rejected", reason, "a.jpg.png")]


def test_mask_against_boxes_and_labels(data: Data) -> None:
    data.add("inside.jpg")
    data.add("outside.jpg", boxes=(Box(0, 0, 20, 30),))
    data.add("whole.jpg", boxes=(Box(0, 0, 64, 47),))
    data.add("blank_answer.jpg", boxes=())
    data.add("unlabelled.jpg", label=None, boxes=None)
    data.add("boxed.jpg", label=0, boxes=(BOX,))
    data.add("marked.jpg", label=0, mask=np.full(SIZE, 255, np.uint8))
    data.add("black.jpg", label=0, mask=np.zeros(SIZE, np.uint8))
    found = data.check(status=0)
    assert reasons(found) == [
        ("warning", "mask_outside_boxes", "outside.jpg.png"),
        ("warning", "box_covers_image", "whole.jpg"),
        ("warning", "manipulated_without_boxes", "blank_answer.jpg"),
        ("warning", "unlabelled", "unlabelled.jpg"),
        ("warning", "authentic_has_boxes", "boxed.jpg"),
        ("warning", "authentic_has_mask", "marked.jpg.png"),
    ]
    assert found["findings"][0]["message"].startswith("64%")  # 18 of 28 columns


def test_lists_beside_a_manifest_are_passed_over(data: Data, tmp_path: Path) -> None:
    """As the shell gives them for *.jsonl."""
    data.add()
    (tmp_path / "m.errors.jsonl").write_text('{"path": "x", "reason": "y", "message": "z"}\n')
    found = data.check("m.errors.jsonl", status=0)
    assert found["images"] == 1
    assert found["findings"] == []


def test_a_bad_row_loses_no_other(data: Data) -> None:
    data.add("a.jpg")
    data.add("b.jpg")
    write_manifest(data.root / "bad.jsonl", Header(), data.samples)
    text = (data.root / "bad.jsonl").read_text().replace("40.0", "400.0", 1)
    (data.root / "bad.jsonl").write_text(text)
    (data.root / "worse.jsonl").write_text("no header")
    found = run(data.root, data.root / "bad.jsonl", data.root / "worse.jsonl", status=3)
    assert reasons(found) == [
        ("rejected", "bad_row", "bad.jsonl:2"), ("rejected", "bad_manifest", "worse.jsonl")
    ]  # fmt: skip
    assert "bad.jsonl:2: box [8.0, 8.0, 400.0, 32.0]" in found["findings"][0]["message"]
    assert found["images"] == 1


def test_links_in_a_circle_are_one_rejection(data: Data) -> None:
    data.add("a.jpg")
    data.add("b.jpg")
    (data.root / "b.jpg").unlink()
    (data.root / "b.jpg").symlink_to(data.root / "c.jpg")
    (data.root / "c.jpg").symlink_to(data.root / "b.jpg")
    assert ("rejected", "bad_path", "b.jpg") in reasons(data.check(status=3))


def test_paths_are_named_as_the_manifest_is(data: Data) -> None:
    data.add("a.jpg", label=None, boxes=None)
    (relative,) = data.check()["findings"]
    (absolute,) = run(data.root, data.root / "m.jsonl")["findings"]
    assert relative["path"] == "a.jpg"
    assert absolute["path"] == str(data.root / "a.jpg")


def test_a_manifest_that_is_not_there_is_wrong_use(
    data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--manifest", "none.jsonl", "--out", "out"]) == 1
    assert "none.jsonl: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("verify", [False, True])
def test_leaks_between_splits(data: Data, verify: bool) -> None:
    data.add("a.jpg", group="scene")
    data.add("b.jpg", seed=0, label=0)  # the bytes of a.jpg
    data.add("c.jpg", seed=0, split="val")
    data.add("d.jpg", seed=9, split="test", group="scene")
    data.add("e.jpg", seed=20, label=0)
    data.add("f.jpg", image=recompressed(scene(20, SIZE), 60), label=0, split="val")
    found = data.check(status=0, verify=verify)
    assert reasons(found) == [
        ("warning", "duplicate", "b.jpg"),
        ("warning", "duplicate_across_splits", "c.jpg"),
        ("warning", "group_across_splits", "a.jpg"),
        ("warning", "near_duplicate", "f.jpg"),
    ]
    messages = [finding["message"] for finding in found["findings"]]
    assert messages[0] == "is the same file as a.jpg, with another label"
    assert messages[1] == "is the same file as a.jpg (train, this is val)"
    assert "'scene' are also d.jpg (test)" in messages[2]
    (pair,) = found["near_duplicates"]
    assert (pair["first"], pair["second"], pair["splits"]) == ("e.jpg", "f.jpg", ["train", "val"])
    assert pair["correlation"] > 0.9


def test_near_duplicates_of_one_split_are_siblings_not_leaks(data: Data) -> None:
    data.add("a.jpg", seed=1)
    data.add("b.jpg", image=forged(scene(1, (120, 160)))[:48, :64])
    assert data.check()["near_duplicates"] == []


def test_near_duplicates_of_two_datasets_share_a_source(data: Data) -> None:
    """Within one dataset and split, one group, or a forgery and its host, they are expected."""
    again = recompressed(scene(1, SIZE), 60)
    data.add("a.jpg", seed=1, label=0)
    data.add("b.jpg", image=again, label=0, dataset="other")
    data.add("c.jpg", image=recompressed(scene(1, SIZE), 50), dataset="third", group="a.jpg")
    data.add("d.jpg", image=recompressed(scene(1, SIZE), 40), dataset="made",
             made_from=("a.jpg", "b.jpg"))  # fmt: skip
    pairs = [(p["first"], p["second"]) for p in data.check(verify=False)["near_duplicates"]]
    assert sorted(pairs) == [("a.jpg", "b.jpg"), ("b.jpg", "c.jpg"), ("c.jpg", "d.jpg")]
    assert ("warning", "near_duplicate_across_datasets", "b.jpg") in reasons(data.check())


def test_what_a_forgery_is_made_from_stays_in_its_split(data: Data) -> None:
    data.add("a.jpg", seed=1, label=0)
    data.add("b.jpg", seed=2, label=0, split="val")
    data.add("c.jpg", seed=3, made_from=("a.jpg", "b.jpg", "of a manifest not checked"))
    found = data.check(status=0, verify=False)
    assert reasons(found) == [("warning", "made_from_another_split", "c.jpg")]
    assert "made from b.jpg, of val" in found["findings"][0]["message"]


def _with_pseudo_masks(data: Data) -> tuple[Path, Path]:
    data.add("a.jpg")
    write_manifest(data.root / "boxes.jsonl", Header(), data.samples)
    from boxpromptiml.manifests.manifest import read_manifest

    out = data.root / "pseudo"
    run_job(read_manifest(data.root / "boxes.jsonl"), out, GrabCutTeacher(), Consensus())
    return out / "manifest.jsonl", out / "masks" / "a.jpg.png"


def _of_another_image(mask: Path) -> None:
    sidecar = json.loads(mask.with_suffix(".json").read_text())
    mask.with_suffix(".json").write_text(json.dumps(sidecar | {"image_sha256": 64 * "0"}))


def _move_box(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace("40.0", "41.0"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda manifest, mask: mask.unlink(), "missing"),
        (lambda manifest, mask: mask.with_suffix(".json").unlink(), "stale_pseudo_mask"),
        (lambda manifest, mask: _move_box(manifest), "stale_pseudo_mask"),
        (lambda m, mask: images.write_png(mask, np.zeros(SIZE, np.uint8)), "stale_pseudo_mask"),
        (lambda manifest, mask: _of_another_image(mask), "stale_pseudo_mask"),
        (lambda m, mask: images.write_png(mask, np.full(SIZE, 9, np.uint8)), "not_levels"),
    ],
)
def test_pseudo_masks(data: Data, damage: Callable[..., Any], reason: str) -> None:
    manifest, mask = _with_pseudo_masks(data)
    assert run(data.root, manifest)["findings"] == []
    damage(manifest, mask)
    assert reasons(run(data.root, manifest, status=3)) == [("rejected", reason, mask.name)]


def test_authentic_images_of_another_format_are_a_leak(
    data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(120):
        manipulated = number % 2
        ending = "jpg" if manipulated else "png"
        data.add(f"{number}.{ending}", label=manipulated, mask=None)
    found = data.check(status=0, verify=False)
    areas = {leak["property"]: (leak["auc"], leak["warn"]) for leak in found["leaks"]}
    assert areas["file format"] == (1.0, True)
    assert areas["file name's ending"] == (1.0, True)
    assert areas["exact size"] == (0.5, False)
    assert areas["JPEG quality"] == (None, False)  # only one class has any
    assert "train: file format alone gives AUC 1.00" in capsys.readouterr().out
    assert "file format alone gives AUC 1.00" in (data.root / "out/report.html").read_text()


def test_histograms_count_everything_once(data: Data) -> None:
    data.add("a.jpg", boxes=(BOX, Box(0, 0, 64, 48)))
    data.add("b.png", label=0)
    found = {h["name"]: h for h in data.check()["histograms"]}
    sums = {name: {k: sum(v) for k, v in h["series"].items()} for name, h in found.items()}
    assert sums == {
        "Image size, megapixels": {"authentic": 1, "manipulated": 1},
        "Box area, percent of the image": {"boxes": 2},
        "Mask area, percent of the image": {"masks": 1},
        "JPEG quality (nearest IJG tables)": {"manipulated": 1},
    }
    boxes = found["Box area, percent of the image"]
    counted = dict(zip(boxes["ranges"], boxes["series"]["boxes"], strict=True))
    assert counted["20 to 40 %"] == 1  # 24 of 48 rows, half of the columns
    assert counted["90 % and more"] == 1
    quality = found["JPEG quality (nearest IJG tables)"]
    assert quality["series"]["manipulated"][quality["ranges"].index("90 to 95")] == 1


def test_workers_change_nothing(data: Data) -> None:
    for number in range(5):
        data.add(f"{number}.jpg")
    (data.root / "3.jpg").unlink()
    alone = data.check()
    assert run(data.root, "m.jsonl", workers=2) == alone


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


HOSTILE = "<img src=x onerror=alert(1)>\"'\u202e&.jpg"


def test_hostile_names_stay_text(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    data.add(HOSTILE.replace("/", "_"), group="<script>", dataset="</td><script>x</script>")
    copy = recompressed(scene(0, SIZE), 70)
    data.add(f"val{HOSTILE}", image=copy, split="val", group="<script>", boxes=(Box(0, 0, 64, 48),))
    data.add("\x1b[2J.jpg", split="test", boxes=(Box(0, 0, 64, 48),))
    data.check(status=0)
    text = (data.root / "out" / "report.html").read_text()
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "form"}
    assert all(set(attrs) <= {"src", "alt"} for tag, attrs in page.tags if tag == "img")
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(sources) == 2
    assert all(str(source).startswith("data:image/jpeg;base64,") for source in sources)
    assert "<img src=x onerror=alert(1)>\"'\\u202e&.jpg" in page.words
    assert not re.search(r"(?:src|href)=\"(?!data:|#)|url\(|@import", text)
    out = capsys.readouterr().out
    assert "\x1b" not in text + out
    assert "\\x1b[2J.jpg" in page.words
    assert "</td><script>x</script>, train" in page.words


def test_the_text_is_short_whatever_is_wrong(
    data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        dataset = f"d{number}"
        data.add(f"{number}.jpg", dataset=dataset, boxes=((BOX,), None, ())[number % 3], mask=None)
    for number, content in enumerate((None, b"", b"x", b"\x89PNG\r\n\x1a\n")):
        path = data.root / f"{number}.jpg"
        path.unlink() if content is None else path.write_bytes(content)
    for number in range(4, 8):
        _corrupt(data.root / f"{number}.jpg")
    data.check(status=3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30
    assert "  and 9 more datasets and splits" in lines


def test_a_manifest_without_images_does_not_pass(
    data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    found = data.check(status=3)
    assert [f["reason"] for f in found["findings"]] == ["empty_manifest"]
    assert found["images"] == 0
    assert "unknown, below 10 images" in capsys.readouterr().out


def test_few_images_say_that_leaks_are_unknown(data: Data) -> None:
    data.add("a.jpg")
    data.add("b.jpg", label=0)
    data.check(status=0)
    page = (data.root / "out" / "report.html").read_text()
    assert "Unknown: every split has fewer than 10 images of a class" in page
    assert "much better than chance" not in page


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (Box(0, 0, 64, 48), ""),  # 5.5 times
        (Box(40, 30, 64, 48), "holds nothing of the mask"),
        (Box(36, 28, 64, 48), "is 140 times as large as what the mask marks in it"),
    ],
)
def test_boxes_that_nobody_drew_around_this_mask(data: Data, box: Box, message: str) -> None:
    data.add(boxes=(BOX, box))
    found = data.check(status=0)
    messages = [f["message"] for f in found["findings"] if f["reason"] == "box_far_from_mask"]
    assert len(messages) == bool(message)
    assert all(message in one for one in messages)


def test_it_starts_without_torch(data: Data) -> None:
    import subprocess

    code = "import data_prep.check, sys; sys.exit('torch' in sys.modules)"
    root = Path(data_prep.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
