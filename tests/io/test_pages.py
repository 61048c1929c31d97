"""Templates and the values that strangers give them."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from boxpromptiml.io.pages import page_environment


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "pages_of_a_test" / "templates").mkdir(parents=True)
    (tmp_path / "pages_of_a_test" / "__init__.py").touch()
    (tmp_path / "pages_of_a_test" / "templates" / "x.jinja").write_text("{{ name }}")
    monkeypatch.syspath_prepend(tmp_path)
    return "pages_of_a_test"


def test_values_are_escaped_and_control_characters_spelt_out(package: str) -> None:
    template = page_environment(package).get_template("x.jinja")
    assert template.render(name="<b>\u202e\x1b") == "&lt;b&gt;\\u202e\\u001b"
    assert template.render(name=0.5) == "0.5"


def test_a_value_that_is_missing_is_an_error(package: str) -> None:
    with pytest.raises(UndefinedError, match="name"):
        page_environment(package).get_template("x.jinja").render()
