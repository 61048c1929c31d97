from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that a fuzzing test writes again and again."""
    return tmp_path_factory.mktemp("fuzz") / "x.any"
