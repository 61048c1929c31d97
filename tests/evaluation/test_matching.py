import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.evaluation.matching import find_predictions, match_predictions
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Header, Manifest, safe_name
from boxpromptiml.manifests.sources import Source
from boxpromptiml.records import Sample

LEVELS = np.array([[0, 128, 255]], np.uint8)
ODD = "set/very: odd?"  # `safe_name` of it is a hash
IMAGES = {
    "set/a1": "tampered/a.1.jpg",
    "set/b": "tampered/b.png",
    "set/c": "authentic/b.tif",
    ODD: "x/d.jpg",
}


def rows(
    root: Path,
    split: Any = "test",
    hashes: dict[str, str] | None = None,
    wanted: Mapping[str, str] = IMAGES,
) -> list[Source]:
    samples = [
        Sample(one, "set", split, one, image, (1, 3), 1, None, image_sha256=(hashes or {}).get(one))
        for one, image in wanted.items()
    ]
    table: Any = tuple(samples)
    manifest = Manifest(root / "test.jsonl", Header(image_root="data"), table)
    return [Source(manifest, sample) for sample in samples]


def folder(root: Path, names: Iterable[str], table: Iterable[object] | None = None) -> Path:
    for name in names:
        images.write_png(root / f"{name}.png", LEVELS)
    if table is not None:
        where = root.parent if root.name == "prob" else root
        lines = "".join(json.dumps(row) + "\n" for row in table)
        (where / "predictions.jsonl").write_text(lines)
    return root


def matched(where: Path, sources: list[Source]) -> list[str]:
    return [file.name for file in match_predictions(where, sources, sources)]


@pytest.mark.parametrize(
    "names",
    [
        ["set/a1", "set/b", "set/c", safe_name(ODD)],  # ids
        ["tampered/a.1", "tampered/b", "authentic/b", "x/d"],  # image paths
        ["deep/er/a.1", "tampered/b", "set/c", "d"],  # last parts where they tell
    ],
)
def test_files_of_any_method(tmp_path: Path, names: list[str]) -> None:
    folder(tmp_path / "maps", names)
    assert matched(tmp_path / "maps", rows(tmp_path)) == names


def test_output_of_predict(tmp_path: Path) -> None:
    names = [safe_name(one) for one in IMAGES]
    table = [{"id": one, "name": safe_name(one), "image_score": 0.5} for one in reversed(IMAGES)]
    folder(tmp_path / "prob", names, table)
    found = match_predictions(tmp_path, rows(tmp_path), rows(tmp_path))
    assert [file.name for file in found] == names
    assert [file.score for file in found] == [0.5] * 4
    table[0]["id"] = "set/other"
    folder(tmp_path / "prob", [], table)
    with pytest.raises(
        UserError, match=r"1 images have no prediction: set/very.*1 predictions bel"
    ):
        matched(tmp_path, rows(tmp_path))


def test_output_of_several_processes_of_predict(tmp_path: Path) -> None:
    folder(tmp_path / "prob", ["set/a1", "set/b"])
    for rank, name in enumerate(["set/b", "set/a1"]):
        row = {"id": name, "name": name}
        (tmp_path / f"predictions.{rank}.jsonl").write_text(json.dumps(row))
    sources = rows(tmp_path)[:2]
    assert matched(tmp_path, sources) == ["set/a1", "set/b"]


def test_output_of_localize_by_the_images_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    names = ["n0", "n1", "n2", "n3"]
    paths = [f"data/{image}" for image in IMAGES.values()]
    paths[0] = str(tmp_path / "link" / IMAGES["set/a1"])
    table = [{"name": n, "path": p} for n, p in zip(names, paths, strict=True)]
    folder(tmp_path / "out/prob", names, table)
    assert matched(tmp_path / "out", rows(tmp_path)) == names


def test_another_image_of_the_same_name_is_not_the_row(tmp_path: Path) -> None:
    table = [{"name": "a.1", "path": "/elsewhere/a.1.jpg", "sha256": "22"}]
    folder(tmp_path / "out/prob", ["a.1"], table)
    sources = rows(tmp_path, hashes={"set/a1": "11"})[:1]
    with pytest.raises(UserError, match=r"no row of the manifest: a\.1\.png"):
        matched(tmp_path / "out", sources)
    assert matched(tmp_path / "out", rows(tmp_path, hashes={"set/a1": "22"})[:1]) == ["a.1"]
    assert matched(tmp_path / "out", rows(tmp_path)[:1]) == ["a.1"]


def test_missing_extra_and_ambiguous_are_all_named(tmp_path: Path) -> None:
    names = ["b", "set/a1", "tampered/a.1", *(f"stray{n}" for n in range(7))]
    where = folder(tmp_path / "maps", names)
    with pytest.raises(UserError) as error:
        matched(where, rows(tmp_path))
    message = str(error.value)
    assert "2 predictions are ambiguous" in message
    assert "b.png could be 'set/b' or 'set/c'" in message
    assert "set/a1.png and tampered/a.1.png are both 'set/a1'" in message
    assert "3 images have no prediction: set/b, set/c, set/very" in message
    assert "7 predictions belong to no row of the manifest: stray0.png" in message
    assert "stray4.png, ..." in message
    assert "stray5" not in message


def test_rows_of_another_split_are_neither_missing_nor_extra(tmp_path: Path) -> None:
    where = folder(tmp_path / "maps", ["set/a1", "set/b", "set/c"])
    known = rows(tmp_path)
    found = match_predictions(where, known, known[1:2])
    assert [file.name for file in found] == ["set/b"]


def test_table_and_files_must_agree(tmp_path: Path) -> None:
    table = [{"name": "set/a1"}, {"name": "set/a1"}, {"name": "set/c"}]
    folder(tmp_path / "prob", ["set/a1", "set/b"], table)
    with pytest.raises(UserError) as error:
        matched(tmp_path, rows(tmp_path))
    message = str(error.value)
    assert "1 names are twice in predictions.jsonl: set/a1" in message
    assert "1 lines of predictions.jsonl have no file: set/c" in message
    assert "1 files have no line in predictions.jsonl: set/b" in message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "should be an object"),
        ('{"name": 3}', "name: Input should be a valid string"),
        ("{}", "name: Field required"),
        ('{"name": "../a"}', "without '..'"),
        ('{"name": "/etc/a"}', "must be relative"),
        ('{"name": "link/a"}', "leads out of"),
        ('{"name": "a", "id": 3}', "id: Input should be a valid string"),
        ('{"name": "a", "image_score": "high"}', "image_score: Input should be a valid number"),
        ('{"name": "a", "image_score": true}', "image_score: Input should be a valid number"),
        ('{"name": "a", "image_score": 1.5}', "image_score: Input should be less than or equal"),
        ('{"name": "a", "image_score": NaN}', "not valid JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    folder(tmp_path / "prob", ["a"])
    (tmp_path / "prob/link").symlink_to(tmp_path)
    (tmp_path / "predictions.jsonl").write_text(f'{{"name": "b"}}\n{line}\n')
    with pytest.raises(UserError, match=message) as error:
        matched(tmp_path, rows(tmp_path))
    assert "predictions.jsonl:2" in str(error.value)


@pytest.mark.parametrize("name", ["nothing", "prob"])
def test_no_maps_at_all(tmp_path: Path, name: str) -> None:
    (tmp_path / "prob").mkdir()
    with pytest.raises(UserError, match="no maps"):
        matched(tmp_path / name, rows(tmp_path))


@pytest.mark.parametrize("ending", [".npz", ".npy", ".tif", ".TIFF", ".PNG"])
def test_maps_of_any_ending_are_found(tmp_path: Path, ending: str) -> None:
    names = ["set/a1", "tampered/b.png", "authentic/b", "d.jpg"]
    for name in names:
        path = tmp_path / "maps" / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert matched(tmp_path / "maps", rows(tmp_path)) == names


def test_endings_of_images_and_folders_tell_rows_apart(tmp_path: Path) -> None:
    wanted = {"a": "one/x.jpg", "b": "one/x.png", "c": "two/x.jpg", "d": "two/deep/x.jpg"}
    names = ["out/one/x.jpg", "out/one/x.png", "out/two/x", "deep/x"]
    folder(tmp_path / "maps", names)
    assert matched(tmp_path / "maps", rows(tmp_path, wanted=wanted)) == names
    folder(tmp_path / "more", ["out/three/x", *names[1:]])
    with pytest.raises(UserError, match="could be"):
        matched(tmp_path / "more", rows(tmp_path, wanted=wanted))


def test_two_maps_of_one_name_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, ["a"])
    (tmp_path / "a.npy").touch()
    with pytest.raises(UserError, match=r"a\.npy and a\.png differ only in the ending"):
        find_predictions(tmp_path)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_a_path_of_no_file_leaves_the_name(tmp_path: Path, path: str) -> None:
    names = ["tampered/a.1", "tampered/b", "authentic/b", "x/d"]
    folder(tmp_path / "prob", names)
    lines = [json.dumps({"name": name, "path": path}) for name in names]
    (tmp_path / "predictions.jsonl").write_text("\n".join(lines))
    assert matched(tmp_path, rows(tmp_path)) == names


def test_a_pipe_for_a_table_is_refused_at_once(tmp_path: Path) -> None:
    folder(tmp_path, ["a"])
    os.mkfifo(tmp_path / "predictions.jsonl")
    with pytest.raises(UserError, match="is not a regular file"):
        find_predictions(tmp_path)
