"""Scores of a run: those of its evaluation, and of baselines beside them."""

import math
from dataclasses import replace
from typing import Any

import pytest
from sklearn.metrics import accuracy_score, f1_score

from boxpromptiml.metrics.bootstrap import Interval
from boxpromptiml.report.run import GroupTable, ScoredRun
from boxpromptiml.report.text import grouped, metric
from tests.helpers.approx import approx
from tests.helpers.report_pages import make_run

PROBS, AUTHENTIC = [0.9, 0.1, 0.9, 0.1], [0.9, 0.1]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> ScoredRun:
    return make_run(tmp_path_factory.mktemp("mine"), PROBS, AUTHENTIC)


def test_scores_are_those_of_the_evaluation_with_blind_maps_beside(scored: ScoredRun) -> None:
    found = scored.scores
    given = scored.evaluation.metrics["scores"]
    assert found["pixel_f1"].value == given["pixel_f1"]["value"]
    assert found["pixel_f1"].low == given["pixel_f1"]["low"]
    assert found["pixel_f1"].count == 4
    region = 50 / 600
    assert found["full_f1"].value == pytest.approx(2 * region / (1 + region), abs=1e-5)
    assert found["empty_f1"].value == 0


def test_image_scores_stand_beside_those_of_calling_all_manipulated(scored: ScoredRun) -> None:
    labels, answer = [1] * 4 + [0] * 2, [1] * 6
    assert scored.scores["all_image_f1"].value == pytest.approx(f1_score(labels, answer))
    accuracy = scored.scores["all_image_accuracy"]
    assert (accuracy.value, accuracy.count) == (approx(accuracy_score(labels, answer)), 6)
    rows = [metric(key).name for key in grouped(scored.scores)["Whole images"]]
    assert rows[rows.index("Image F1") :] == [
        "Image F1",
        "Image F1, all-manipulated baseline",
        "Image accuracy",
        "Image accuracy, all-manipulated baseline",
    ]
    metrics = scored.evaluation.metrics | {"preset": "mvss"}  # of sensitivity and specificity
    of_rates = replace(scored, evaluation=replace(scored.evaluation, metrics=metrics))
    assert of_rates.scores["all_image_f1"].value == 0
    some = replace(scored.evaluation, rows=scored.evaluation.rows[:4])
    assert "all_image_f1" not in replace(scored, evaluation=some).scores


def test_blind_maps_are_of_the_default_policy_only(scored: ScoredRun) -> None:
    metrics = scored.evaluation.metrics | {"preset": "mvss"}
    other = replace(scored, evaluation=replace(scored.evaluation, metrics=metrics))
    assert "full_f1" not in other.scores


def test_groups_are_lowest_first_and_authentic_is_no_kind(scored: ScoredRun) -> None:
    tables = {table.by: table for table in scored.group_tables}
    kinds = tables["kind"]
    assert list(kinds.rows) == ["removal", "splice"]
    assert [scores["pixel_f1"].value for _, scores in kinds.rows.values()] == [0, 1]
    assert "false_alarm_pixels" not in kinds.columns
    assert list(tables) == ["kind"]  # of one dataset and one size of regions


def test_a_group_without_f1_or_with_few_images_is_not_the_lowest() -> None:
    def lowest(**groups: tuple[float, int]) -> str | None:
        rows: Any = {
            name: (40, {"pixel_f1": Interval(value, math.nan, math.nan, count)})
            for name, (value, count) in groups.items()
        }
        found = GroupTable("dataset", ("pixel_f1",), rows).lowest
        return found[0] if found else None

    assert lowest(none=(math.nan, 0), low=(0.3, 20), high=(0.9, 40)) == "low"
    assert lowest(low=(0.3, 20), high=(0.9, 40), few=(0.1, 9)) == "low"
    assert lowest(none=(math.nan, 0), low=(0.3, 20)) is None
