"""YAML that stands for more than it says is refused before anything is built from it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.errors import UserError
from boxpromptiml.io.strict_yaml import check_yaml, read_yaml

BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

REFUSED = {
    "aliases": (BOMB, "aliases"),
    "merge": ("a: &a {x: 1}\nb:\n  <<: *a\n", "aliases"),
    "key twice": ("a: 1\nb: 2\na: 3\n", "'a' is given twice"),
    "key twice below": ("a:\n  - {b: 1, c: [b, b], b: 2}\n", "'b' is given twice"),
    "flow": ("[" * 60 + "]" * 60, "nested more than 50 deep"),
    "bottomless": ("[" * 90_000, "nested more than 50 deep|maximum nesting depth"),  # libyaml's own
    "block": ("\n".join(" " * n + "- " for n in range(60)), "nested more than 50 deep"),
    "nul": ('out: "a\\0b"', "NUL"),
    "unclosed": ("a: [1, 2", "expected"),
}


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED)
def test_what_hides_something_is_refused(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError, match=why):
        check_yaml(text)
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"a\.yaml: cannot be read: .*{why}"):
        read_yaml(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc:#&* -", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner),
    max_leaves=12,
)


@given(VALUES)
def test_any_other_value_is_read_as_it_was_written(value: Any) -> None:
    text = yaml.dump(value, Dumper=_Plain)
    check_yaml(text)
    assert yaml.safe_load(text) == value


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "date.yaml").write_text("a: 2024-13-45")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    (tmp_path / "large.yaml").write_bytes(b"#" * 2**23)
    for name, why in {
        "date.yaml": "month must be in",
        "latin.yaml": "not UTF-8",
        "large.yaml": "larger than",
        "none.yaml": "No such file",
        ".": "Is a directory|not a regular file",
    }.items():
        with pytest.raises(UserError, match=why) as caught:
            read_yaml(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
