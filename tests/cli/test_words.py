"""Words of the command line: lists, flags, names that are no text, `None`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.cli.words import complete, read_none
from boxpromptiml.errors import UserError

NAMES = st.text(st.characters(exclude_characters="\0"), min_size=1).filter(
    lambda name: not name.startswith(("--", "["))
)


def command(images: list[str], out: str = "o", seeds: list[int] | None = None) -> None: ...


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_names_arrive_as_they_were_given(names: list[str]) -> None:
    (word,) = complete(["--images", *names], command)
    assert json.loads(word.removeprefix("--images=")) == names


@given(st.binary(min_size=1, max_size=8))
def test_names_that_are_not_utf8_too(raw: bytes) -> None:
    name = "n" + raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    (word,) = complete(["--images", name], command)
    assert json.loads(word.removeprefix("--images=")) == [name]


def test_none_is_no_value() -> None:
    words = ["fit", "--data.cache=None", "--data.cache", "None", "None", "--out=Nonesuch"]
    assert read_none(words) == [
        "fit", "--data.cache=null", "--data.cache", "null", "None", "--out=Nonesuch"
    ]  # fmt: skip


def test_a_list_given_twice_is_refused() -> None:
    for twice in (["--images", "a", "--images", "b"], ["--images=[a]", "--images=b"]):
        with pytest.raises(UserError, match="--images is given twice"):
            complete([*twice, "--out", "c"], command)
    assert complete(["--out", "c", "--out", "d"], command) == ["--out", "c", "--out", "d"]
