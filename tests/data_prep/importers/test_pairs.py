import json
from pathlib import Path
from typing import Any

import pytest

from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest
from data_prep.__main__ import main
from tests.helpers.data import mask_file
from tests.helpers.trees import mask, photo, region


def run(source: Path, out: Path, *more: str) -> tuple[int, dict[str, str]]:
    status = main(
        ["import", "--dataset", "pairs", "--source", str(source), "--out", str(out), *more]
    )
    path = out.with_name(f"{out.stem}.errors.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    folder = source.parent if source.suffix else source
    return status, {row["path"].removeprefix(f"{folder}/"): row["reason"] for row in rows}


def rows(out: Path) -> dict[str, tuple[int | None, str | None, str]]:
    """Label, mask and split by id; every mask is held against its image."""
    manifest = read_manifest(out)
    for sample in manifest.samples:
        if sample.mask:
            pixels, _ = images.read_image(manifest.image_path(sample))
            truth = images.read_mask(mask_file(manifest, sample), sample.mask_threshold)
            assert (truth == (pixels[..., 0] > 130)).all()
    return {sample.id: (sample.label, sample.mask, sample.split) for sample in manifest.samples}


@pytest.fixture
def benco(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for stem in ("6", "7", "10"):  # sorted as text and as numbers they differ
        photo(root / "Tp" / f"{stem}.jpg", region(stem))
        mask(root / "Gt" / f"{stem}{'_gt' if stem == '7' else ''}.png", region(stem))
    photo(root / "Au" / "a.jpg")
    return root


def test_benco_folders_join_by_name(benco: Path, tmp_path: Path) -> None:
    assert run(benco, tmp_path / "m.jsonl") == (0, {})
    assert rows(tmp_path / "m.jsonl") == {
        "data/Tp/10": (1, "Gt/10.png", "train"),
        "data/Tp/6": (1, "Gt/6.png", "train"),
        "data/Tp/7": (1, "Gt/7_gt.png", "train"),
        "data/Au/a": (0, None, "train"),
    }


def test_leftovers_on_both_sides_are_listed(benco: Path, tmp_path: Path) -> None:
    (benco / "Gt" / "6.png").rename(benco / "Gt" / "5.png")
    photo(benco / "Tp" / "7.png", region("7"))
    status, rejected = run(benco, tmp_path / "m.jsonl", "--split", "val", "--name", "n")
    assert status == 3
    assert rejected == {"Tp/6.jpg": "no_mask", "Gt/5.png": "no_image", "Tp/7.png": "duplicate"}
    assert {key: row[2] for key, row in rows(tmp_path / "m.jsonl").items()} == {
        "n/Au/a": "val",
        "n/Tp/10": "val",
        "n/Tp/7": "val",
    }


@pytest.mark.parametrize("as_list", [False, True])
def test_jpeg_masks_of_benco_are_read_as_benco_reads_them(
    benco: Path, tmp_path: Path, as_list: bool
) -> None:
    (benco / "Gt" / "6.png").unlink()
    mask(benco / "Gt" / "6.jpg", region("6"))
    source = benco
    if as_list:
        source = benco / "list.json"
        source.write_text(json.dumps([["Tp/6.jpg", "Gt/6.jpg"]]))
    assert run(source, tmp_path / "m.jsonl", "--verify", "true") == (0, {})
    masks = {row[1] for row in rows(tmp_path / "m.jsonl").values()}  # held against their images
    assert "Gt/6.jpg" in masks
    samples = read_manifest(tmp_path / "m.jsonl").samples
    assert {sample.mask_threshold for sample in samples if sample.mask} == {127}
    assert run(source, tmp_path / "m.jsonl", "--mask_threshold", "100") == (0, {})
    samples = read_manifest(tmp_path / "m.jsonl").samples
    assert {sample.mask_threshold for sample in samples if sample.mask} == {100}


@pytest.mark.parametrize("absolute", [False, True])
def test_a_list_of_benco(benco: Path, tmp_path: Path, absolute: bool) -> None:
    prefix = f"{benco}/" if absolute else "./"
    content = [
        [f"{prefix}Tp/10.jpg", f"{prefix}Gt/10.png"],
        [f"{prefix}Au/a.jpg", "Negative"],
        [f"{prefix}Tp/99.jpg", f"{prefix}Gt/99.png"],
        [f"{prefix}Tp/6.jpg", "../../etc/passwd"],
        ["only one"],
        {"path": 3},
    ]
    (benco / "list.json").write_text(json.dumps(content))
    status, rejected = run(benco / "list.json", tmp_path / "m.jsonl")
    assert status == 3
    assert rejected == {
        "list.json#2": "missing",
        "Tp/6.jpg": "no_mask",
        "list.json#4": "bad_row",
        "list.json#5": "bad_row",
    }
    assert rows(tmp_path / "m.jsonl") == {
        "list/Tp/10": (1, "Gt/10.png", "train"),
        "list/Au/a": (0, None, "train"),
    }


def test_a_datalist_of_wscl_keeps_its_subsets(benco: Path, tmp_path: Path) -> None:
    content = {
        "6.jpg": {"subset": "train", "path": "data/Tp/6.jpg", "label": 1, "mask": "data/Gt/6.png"},
        "7.jpg": {"subset": "val", "path": "data/Tp/7.jpg", "label": 1},
        "a.jpg": {"subset": "val", "path": "data/Au/a.jpg", "label": 0},
        "b.jpg": {"subset": "other", "path": "data/Au/a.jpg", "label": 0},
    }
    (benco / "wscl_datalist.json").write_text(json.dumps(content))
    status, rejected = run(benco / "wscl_datalist.json", tmp_path / "m.jsonl")
    assert (status, rejected) == (3, {"wscl_datalist.json#b.jpg": "bad_row"})
    assert rows(tmp_path / "m.jsonl") == {
        "wscl_datalist/Tp/6": (1, "Gt/6.png", "train"),
        "wscl_datalist/Tp/7": (1, None, "val"),
        "wscl_datalist/Au/a": (0, None, "val"),
    }


def test_scaf_scribbles_are_no_masks_and_its_lists_choose(tmp_path: Path) -> None:
    root = tmp_path / "scaf"
    for stem in ("x 1", "y"):
        photo(root / "train" / "Image" / f"{stem}.tif", region(stem))
        mask(root / "train" / "Scribble" / f"{stem}.png", region(stem))
    (root / "train.txt").write_text("x 1.tif\nz.tif\n")
    photo(root / "test" / "Image" / "t.jpg", region("t"))
    mask(root / "test" / "GT" / "t.png", region("t"))
    (root / "test.txt").write_text("t.jpg\n")
    status, rejected = run(root, tmp_path / "m.jsonl")
    assert status == 3
    assert rejected == {"train/z.tif": "missing", "train/Image/y.tif": "not_listed"}
    assert rows(tmp_path / "m.jsonl") == {
        "scaf/Tp/train/x 1": (1, None, "train"),
        "scaf/Tp/test/t": (1, "test/GT/t.png", "test"),
    }


@pytest.mark.parametrize("text", ["", "[", '{"a": 1, "a": 2}', "[NaN]"])
def test_what_is_no_list_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "l.json").write_text(text)
    assert run(tmp_path / "l.json", tmp_path / "m.jsonl")[0] == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "content",
    [
        [
            {"path": "Tp/10.jpg", "mask": "Gt/10.png", "label": 1},
            {"path": "Au/a.jpg", "mask": None, "label": 0},
        ],
        [["Tp\\10.jpg", "Gt\\10.png"], ["Au\\a.jpg", "negative"]],
        [["/old/machine/Tp/10.jpg", "/old/machine/Gt/10.png"], ["/old/machine/Au/a.jpg", None]],
        [["D:\\old\\Tp\\10.jpg", "D:\\old\\Gt\\10.png"], ["D:\\old\\Au\\a.jpg", "None"]],
    ],
    ids=["forensichub", "windows", "elsewhere", "elsewhere on windows"],
)
def test_lists_as_people_have_them(benco: Path, tmp_path: Path, content: list[Any]) -> None:
    (benco / "list.json").write_text(json.dumps(content))
    assert run(benco / "list.json", tmp_path / "m.jsonl") == (0, {})
    assert rows(tmp_path / "m.jsonl") == {
        "list/Tp/10": (1, "Gt/10.png", "train"),
        "list/Au/a": (0, None, "train"),
    }
    samples = read_manifest(tmp_path / "m.jsonl").samples
    assert {sample.mask_threshold for sample in samples if sample.mask} == {127}


def test_a_bare_name_of_another_machine_joins_nothing(benco: Path, tmp_path: Path) -> None:
    (benco / "10.jpg").write_bytes((benco / "Tp" / "10.jpg").read_bytes())
    (benco / "list.json").write_text(json.dumps([["/old/Au/10.jpg", "Negative"]]))
    assert run(benco / "list.json", tmp_path / "m.jsonl") == (1, {"list.json#0": "missing"})


def test_what_was_rejected_explains_why_nothing_was_found(
    benco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (benco / "list.json").write_text(json.dumps([{"image": "Tp/10.jpg"}, {"image": "Tp/6.jpg"}]))
    status, rejected = run(benco / "list.json", tmp_path / "m.jsonl")
    assert (status, rejected) == (1, {"list.json#0": "bad_row", "list.json#1": "bad_row"})
    message = capsys.readouterr().err
    assert "2 rejected, the first: " in message
    assert "list.json#0: is no entry" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "m.jsonl").exists()


def test_a_table_that_contradicts_itself(benco: Path, tmp_path: Path) -> None:
    mask(benco / "Gt" / "a.png", region("") & False)
    (benco / "list.csv").write_text(
        "image,mask,label\n"
        "Tp/6.jpg,Tp/6.jpg,\n"  # its own mask
        "Tp/7.jpg,Gt/7_gt.png,authentic\n"
        "Au/a.jpg,Gt/a.png,authentic\n"
        "Tp/10.jpg,Gt/10.png,\n"
    )
    status, rejected = run(benco / "list.csv", tmp_path / "m.jsonl")
    assert status == 3
    assert rejected == {"list.csv#2": "bad_row", "Tp/7.jpg": "authentic_has_mask"}
    assert rows(tmp_path / "m.jsonl") == {
        "list/Au/a": (0, None, "train"),
        "list/Tp/10": (1, "Gt/10.png", "train"),
    }
