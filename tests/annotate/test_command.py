"""The commands as a whole; what they serve is tried in test_page_browser.py."""

import json
from pathlib import Path

import pytest

from boxpromptiml.annotate import command
from boxpromptiml.annotate.command import annotate, page
from boxpromptiml.annotate.desk import Desk
from boxpromptiml.cli import main
from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.io.files import locked_file
from boxpromptiml.manifests.manifest import read_manifest
from tests.annotate.test_layers import scene

SAID = {"revision": 0, "verdict": "authentic", "boxes": [], "finished": True, "seconds": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png"):
        images.write_png(tmp_path / "photos" / name, scene())
    return tmp_path / "photos"


@pytest.fixture
def desks(monkeypatch: pytest.MonkeyPatch) -> list[Desk]:
    """The desks that would be served; one photograph is said to be authentic on each."""
    found: list[Desk] = []

    def serve(desk: Desk, _: int) -> None:
        found.append(desk)
        if desk.storage is not None:
            desk.save(0, json.dumps(SAID).encode())

    monkeypatch.setattr(command, "serve", serve)
    return found


def test_a_folder_becomes_two_files_and_the_next_step_is_named(
    folder: Path, desks: list[Desk], capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "boxes.json"  # among the photographs, as a person may do
    words = ["annotate", "--images", str(folder), "--out", str(out), "--annotator", "ana"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "5 photographs: 0 manipulated (0 boxes), 1 authentic, 0 skipped, 4 open" in said.out
    assert said.out.endswith(
        f"next: python -m data_prep pseudo-masks --manifest {folder / 'boxes.jsonl'} --out PSEUDO\n"
    )
    assert [s.label for s in read_manifest(folder / "boxes.jsonl").samples] == [0, *[None] * 4]
    assert main(words) == 0  # its own files are no photographs
    assert [one["verdict"] for one in desks[1].state()["photographs"]] == ["authentic", *[None] * 4]
    (folder / "a.txt").write_text("no photograph")
    assert main(words) == 3
    assert json.loads((folder / "boxes.errors.jsonl").read_text())["reason"] == "unknown_format"
    (folder / "a.txt").unlink()
    assert main(words) == 0
    assert not (folder / "boxes.errors.jsonl").exists()


def test_another_order_shows_and_saves_the_right_photograph(
    folder: Path, desks: list[Desk], tmp_path: Path
) -> None:
    assert annotate(folder, tmp_path / "boxes.json", order="random") == 0
    first = desks[0].state()["photographs"][0]
    assert (first["name"], first["verdict"]) == (desks[0].album[0].name, "authentic")
    samples = read_manifest(tmp_path / "boxes.jsonl").samples
    assert [s.image for s in samples if s.label == 0] == [first["name"]]
    assert [s.image for s in samples] == sorted(s.image for s in samples)


def test_a_file_is_held_by_one_page(folder: Path, tmp_path: Path, desks: list[Desk]) -> None:
    out = tmp_path / "boxes.json"
    with locked_file(out), pytest.raises(UserError, match="another job is writing this file"):
        annotate(folder, out)
    assert not out.exists()
    assert annotate(folder, out) == 0
    images.write_png(tmp_path / "others" / "z.png", scene())
    with pytest.raises(UserError, match="of other photographs"):
        annotate(tmp_path / "others", out)


def test_a_folder_that_is_too_large_is_said_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_MAX_PHOTOGRAPHS", 4)
    with pytest.raises(UserError, match="more than 4 photographs; divide the folder"):
        annotate(folder, tmp_path / "boxes.json")
    assert not (tmp_path / "boxes.json").exists()


def test_a_page_saves_nothing(folder: Path, desks: list[Desk]) -> None:
    page()
    page(images=folder)
    assert [len(desk.album) for desk in desks] == [0, 5]
    assert [desk.storage for desk in desks] == [None, None]
    assert sorted(path.name[0] for path in folder.iterdir()) == list("abcde")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "photos"], "annotate needs --images FOLDER and --out boxes.json"),
        (["--images", "none", "--out", "a.json"], "none: no such folder"),
        (["--images", "photos", "--out", "a.csv"], "must end in .json"),
        (
            ["--images", "photos", "--out", "a.json", "--copies", "0"],
            "copies must be from 1 to 1000",
        ),
        (
            ["--images", "photos", "--out", "a.json", "--teacher", "sam"],
            "needs --teacher_checkpoint",
        ),
        (["--images", "photos", "--out", "a.json", "--checkpoint", "x.ckpt"], "x.ckpt: no such"),
        (
            ["--images", "photos", "--out", "a.json", "--port", "99999"],
            "--port 99999 cannot be used",
        ),
    ],
)
def test_wrong_use_is_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    assert main(["annotate", *words]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error
