"""The numbers of a study's table, from evaluations made by hand."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.metrics.bootstrap import difference_interval, mean_interval
from boxpromptiml.metrics.results import Evaluation, ImageRow
from boxpromptiml.studies.table import StudyTable, VariantScores


def evaluation(f1: list[float], alarms: list[float], best: float = 0.6) -> Evaluation:
    def row(number: int, label: int, f1: float, flagged: float) -> ImageRow:
        return ImageRow(
            id=f"{label}_{number}", dataset="d", kind="", group=f"{label}_{number}", label=label,
            height=4, width=4, image_score=0.5, f1=f1, iou=f1 / 2, auc=0.5 + f1 / 2,
            precision=f1, recall=f1, flagged=flagged, region=0.1, region_size="", name="n",
        )  # fmt: skip

    rows = [row(n, 1, value, 0.2) for n, value in enumerate(f1)]
    rows += [row(n, 0, float("nan"), value) for n, value in enumerate(alarms)]
    return Evaluation({"scores": {"best_f1": {"value": best}}}, tuple(rows))


F1 = {0: [0.1, 0.5, 0.9, 0.3], 1: [0.3, 0.5, 0.7, 0.5]}
OTHER = [0.0, 0.4, 0.9, 0.1]


def table() -> StudyTable:
    a = VariantScores("a", "masks (slow)", (0, 1), tuple(evaluation(F1[s], [0.0, 0.2]) for s in F1))
    b = VariantScores("b", "boxes", (0,), (evaluation(OTHER, [0.4, 0.2], 0.4),))
    return StudyTable("What", "a", "test", (a, b))


def test_scores_are_means_over_images_of_means_over_seeds() -> None:
    a, b = table().variants
    assert a.mean("f1") == mean_interval(np.mean(list(F1.values()), axis=0))
    assert a.mean("f1").value == pytest.approx(0.475)
    assert a.by_seed("f1") == pytest.approx([0.45, 0.5])
    assert b.mean("flagged", 0).value == pytest.approx(0.3)
    assert b.mean("auc").count == 4


def test_the_difference_is_paired_over_the_seeds_that_both_arms_have() -> None:
    shown = table()
    a, b = shown.variants
    assert shown.difference(a) is None
    assert shown.difference(b) == difference_interval(OTHER, F1[0])


def test_differences_of_several_seeds_are_shown_one_by_one() -> None:
    a = table().variants[0]
    scored = tuple(evaluation(f1, []) for f1 in ([0.0, 0.4, 0.8, 0.2], [0.4, 0.6, 0.8, 0.6]))
    both = StudyTable("What", "a", "test", (a, VariantScores("c", "more", (0, 1), scored)))
    assert both.differences_by_seed(both.variants[1]) == pytest.approx([-0.1, 0.1])
    assert "; by seed -0.100, +0.100 |" in both.markdown()
    assert both.differences_by_seed(a) == []


def test_other_images_are_not_compared() -> None:
    shown = table()
    few = VariantScores("b", "boxes", (0,), (evaluation([0.5], []),))
    with pytest.raises(UserError, match="different images"):
        StudyTable("What", "a", "test", (shown.variants[0], few)).difference(few)


def test_markdown_has_a_line_for_every_arm_and_says_what_the_intervals_are() -> None:
    text = table().markdown()
    assert "| against masks |" in text
    assert "| masks (slow) | 0.475 [" in text
    assert "| 0: 0.450, 1: 0.500 |" in text
    assert "| boxes | 0.350 [" in text
    assert "-0.100 [" in text
    assert "(seed 0 only) |" in text
    assert "30.0 % [" in text
    assert "4 manipulated and 2 authentic images (test)" in text


def test_an_empty_study_is_a_table_without_lines(tmp_path: Path) -> None:
    empty = StudyTable("What", "a", "test", ())
    empty.write(tmp_path)
    assert "No variant has a result yet." in (tmp_path / "study.md").read_text()


def test_files_are_written_and_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        table().write(tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "x").iterdir())
    assert names == ["study.json", "study.md", "study.png", "study.svg"]
    for name in names:
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


@pytest.mark.parametrize("text", ["$\\frac$", "a | b\nc", "$x$ <b>", "\\"])
def test_any_text_names_a_variant(text: str, tmp_path: Path) -> None:
    shown = table()
    odd = replace(shown.variants[1], what=text)
    StudyTable(text, "a", "test", (shown.variants[0], odd)).write(tmp_path)
    lines = (tmp_path / "study.md").read_text().splitlines()
    assert all(re.sub(r"\\\|", "", line).count("|") == 8 for line in lines[:4])
    assert (tmp_path / "study.png").stat().st_size > 1000
