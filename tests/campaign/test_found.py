"""What the campaign found in places that have no test file of their own for it."""

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.studies.plan import read_study


@pytest.mark.parametrize(
    "text",
    ["[" * 3000, "a: 2024-13-45", "a: &x [*x]", "a: &x {b: *x}", "\x00", "a: 1\na: [", "? {}\n: 1"],
    ids=["deep", "no date", "circle", "circle of keys", "nul", "open", "odd key"],
)
def test_a_study_that_yaml_stumbles_over_is_one_clear_error(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match=r"s\.yaml"):
        read_study(tmp_path / "s.yaml")
