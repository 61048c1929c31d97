from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.annotate.photographs import Photograph
from boxpromptiml.annotate.storage import Annotation, Saved, Storage, Verdict
from boxpromptiml.annotate.summary import counts, seconds_text, summary_text
from boxpromptiml.cli import main
from boxpromptiml.records import Box

SAID: list[tuple[Verdict | None, float, str]] = [
    ("manipulated", 4.0, "ana"), ("manipulated", 8.0, "ana"), ("authentic", 2.0, "ben"),
    ("skipped", 20.0, "ben"), (None, 99.0, "ben"),
]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    photographs = [Photograph(f"{number}.jpg", (9, 9), 1, "") for number in range(6)]
    storage = Storage(tmp_path / "boxes.json", tmp_path, photographs, Saved(), "mine", "train")
    for number, (verdict, seconds, who) in enumerate(SAID):
        boxes = (Box(1, 1, 5, 5),) if verdict == "manipulated" else ()
        storage.put(f"{number}.jpg", Annotation(verdict, boxes, True, seconds, who), 0)
    return tmp_path / "boxes.json"


def test_median_and_quartiles_are_numpys(file: Path) -> None:
    low, median, high = np.quantile([4, 8, 2, 20], (0.25, 0.5, 0.75))
    text = summary_text(file)
    assert f"median {median:.1f} s, quartiles {low:.1f} and {high:.1f} s (n = 4)" in text
    assert "6 photographs: 2 manipulated (2 boxes), 1 authentic, 1 skipped, 2 open" in text
    assert "  manipulated: median 6.0 s" in text
    assert "  by ana: median 6.0 s" in text
    assert "  by ben: median 11.0 s" in text


def test_nothing_annotated() -> None:
    assert seconds_text([Annotation()]) == "none annotated yet"
    assert counts([Annotation()]) == {
        "manipulated": 0, "authentic": 0, "skipped": 0, "open": 1
    }  # fmt: skip


def test_the_command_prints_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", "--summary", str(file)]) == 0
    assert capsys.readouterr().out == summary_text(file)
    assert main(["annotate", "--summary", str(file.with_name("none.json"))]) == 1
    assert "none.json: cannot be read" in capsys.readouterr().err
