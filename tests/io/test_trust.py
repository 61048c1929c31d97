import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.io.processes import child_environment
from boxpromptiml.io.trust import is_import_path, trust, trusted_object


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a module of its own and one that poses as a library."""
    (tmp_path / "ours_to_try.py").write_text("class Net: ...\n")
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('imported instead of the library')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("ours_to_try", None)
    trust([])


def test_the_working_directory_is_importable_last_and_only_with_trust(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    trust([])
    assert str(folder) not in sys.path
    trust(["ours_to_try", "colorsys"])
    assert sys.path[-1] == str(folder)
    assert trusted_object("ours_to_try.Net", "--net").__name__ == "Net"
    assert trusted_object("colorsys.rgb_to_hsv", "--net")(0, 0, 0) == (0, 0, 0)


def test_a_child_starts_without_the_trusted_working_directory(folder: Path) -> None:
    (folder / "sitecustomize.py").write_text("open('ran', 'w')")
    trust(["ours_to_try"])
    assert str(folder) in sys.path
    subprocess.run([sys.executable, "-P", "-c", ""], env=child_environment(), check=True)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("trusted", "path", "said"),
    [
        ([], "ours_to_try.Net", "add --trust=ours_to_try"),
        (["ours_to_try.Other"], "ours_to_try.Net", "add --trust=ours_to_try"),
        (["ours"], "ours_to_try.Net", "add --trust=ours_to_try"),
        (["ours_to_try"], "ours_to_try.Missing", "ours_to_try has no 'Missing'"),
        (["gone"], "gone.Net", "there is no module 'gone'"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(trusted: list[str], path: str, said: str) -> None:
    trust(trusted)
    with pytest.raises(UserError, match=f"^--net.*{said}$"):
        trusted_object(path, "--net")


def test_the_form_of_an_import_path() -> None:
    good = ("a.b", "a_1.b.C")
    bad = ("", "a", "a.", ".a", "a..b", "1a.b", "a.b c", "../a.b", "a/b.py", "a.b\n")
    assert [is_import_path(text) for text in (*good, *bad)] == [True] * 2 + [False] * len(bad)
