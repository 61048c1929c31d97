import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from boxpromptiml.io.image_inputs import find_inputs, name_inputs

parts = st.sampled_from(
    ["a", "A", "n1", "n2", "x", "x.png", "x.jpg", "x.jpg.png", "é", "e\u0301", "b:c", "\udcff",
     "y" * 150, ".png", "x_jpg", "..png", "two\nlines"]
)  # fmt: skip
trees = st.lists(st.lists(parts, min_size=1, max_size=3).map("/".join), unique=True, max_size=12)


def folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


def can_exist_together(names: list[str]) -> bool:
    """Whether the files of all names are distinct, and none is where another needs a folder."""
    files = [folded(PurePosixPath(name + end)) for name in names for end in (".png", ".jpg")]
    folders = {folded(p) for name in names for p in PurePosixPath(name + ".png").parents}
    return len(set(files)) == len(files) and folders.isdisjoint(files)


@example(["..png"], {})
@given(trees, st.dictionaries(trees.filter(len).map(lambda t: "/".join(t[:2])), st.none()))
@example(["b:c", "n1", "n1.jpg"], {})
@example(["x.jpg", "x.png/y.jpg"], {})
@example(["x.png/y.jpg", "x.jpg"], {})
@example(["x.jpg", "x.png", "x_jpg", "x_png", "x_1"], {})
def test_every_file_of_any_tree_gets_files_of_its_own(
    tree: list[str], earlier: dict[str, None]
) -> None:
    inputs = [(Path("root") / one, Path("root")) for one in tree]
    taken = {name: Path("other") / name for name in earlier}
    if not can_exist_together(list(taken)):
        taken = {}
    named = name_inputs(inputs, taken)
    assert sorted(named.values()) == sorted(path for path, _ in inputs)
    assert can_exist_together([*named, *taken])
    assert all(".." not in PurePosixPath(name).parts for name in named)


def test_the_names_can_be_written(tmp_path: Path) -> None:
    tree = ["x.jpg", "x.png/y.jpg", "n1.jpg", "b:c.jpg", "x.png/z/w.tif", "X.bmp"]
    for name in name_inputs([(tmp_path / one, tmp_path) for one in tree]):
        for ending in (".png", ".jpg"):
            path = tmp_path / "out" / (name + ending)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 12


def test_a_file_keeps_its_name_and_another_gets_another() -> None:
    old, new = (Path("old/x.jpg"), Path("old")), (Path("new/x.jpg"), Path("new"))
    assert name_inputs([new, old], {"x": Path("old/x.jpg")}) == {
        "x_jpg": Path("new/x.jpg"),
        "x": Path("old/x.jpg"),
    }


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "sub/c.jpg", "odd[1].jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    return tmp_path / "photos"


def test_files_folders_globs_and_missing_paths(photos: Path) -> None:
    patterns = [str(photos / "*"), str(photos), str(photos / "no.jpg"), str(photos / "odd[1].jpg")]
    found, rejected = find_inputs(patterns, photos / "out")
    assert sorted(name_inputs(found)) == ["a", "b", "no", "odd[1]", "sub/c"]
    assert not rejected


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("*.nef", "no_match"),
        ("gone[1].jpg", "no_match"),
        ("**x", "no_match"),
        ("empty", "empty_folder"),
        ("https://host/x.jpg", "address"),
        ("out", "own_output"),
    ],
)
def test_what_yields_nothing_is_said(
    photos: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, reason: str
) -> None:
    monkeypatch.chdir(photos)
    Path("empty").mkdir()
    Path("out/prob").mkdir(parents=True)
    Path("out/prob/a.png").touch()
    found, rejected = find_inputs(["a.jpg", pattern], Path("out"))
    assert [file for file, _ in found] == [Path("a.jpg")]
    assert [(one.path, one.reason) for one in rejected] == [(pattern, reason)]


@pytest.mark.parametrize("out", ["out", "../photos/out", "link/out", "{photos}/out"])
@pytest.mark.parametrize("images", [".", "link", "../photos"])
def test_the_jobs_own_output_is_no_input(
    photos: Path, monkeypatch: pytest.MonkeyPatch, out: str, images: str
) -> None:
    monkeypatch.chdir(photos)
    Path("out").mkdir()
    Path("out/prob.png").touch()
    Path("link").symlink_to(photos)
    found, _ = find_inputs([images], Path(out.format(photos=photos)))
    assert sorted(file.name for file, _ in found) == [
        "a.jpg", "b.jpg", "c.jpg", "link", "odd[1].jpg",
    ]  # fmt: skip


def test_a_name_that_looks_like_a_pattern_hides_no_other_file(tmp_path: Path) -> None:
    names = ["*.jpg", "[ab].jpg", "a.jpg", "b.jpg"]
    for name in names:
        (tmp_path / name).touch()
    for pattern, wanted in (("*.jpg", names), ("[ab].jpg", names[1:]), ("a.jpg", ["a.jpg"])):
        found, rejected = find_inputs([f"{tmp_path}/{pattern}"], tmp_path / "out")
        assert sorted(path.name for path, _ in found) == wanted
        assert not rejected


def test_hidden_images_of_a_folder_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".sub").mkdir()
    for name in ("a.jpg", ".b.JPG", ".sub/c.png", ".lock"):
        (tmp_path / name).touch()
    found, _ = find_inputs([str(tmp_path)], tmp_path / "out")
    assert [path.name for path, _ in found] == ["a.jpg"]
    assert "2 hidden images are left out" in caplog.text


def test_an_empty_word_is_not_the_working_directory(tmp_path: Path) -> None:
    found, (rejected,) = find_inputs([""], tmp_path)
    assert not found
    assert rejected.reason == "no_match"


def test_an_endless_pattern_is_a_path_that_is_not_there(tmp_path: Path) -> None:
    pattern = "[" * 50_000  # as a pattern it would take a minute
    found, rejected = find_inputs([pattern], tmp_path)
    assert [file for file, _ in found] == [Path(pattern)]
    assert not rejected
