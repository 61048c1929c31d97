"""Runs beside each other: differences pair images, and what cannot be compared is said."""

from dataclasses import replace

import numpy as np
import pytest

from boxpromptiml.metrics.bootstrap import Interval
from boxpromptiml.metrics.results import Evaluation, ImageRow
from boxpromptiml.report.comparison import PAIRED, compare, judge
from boxpromptiml.report.run import ScoredRun
from tests.helpers.report_pages import make_run


def with_config(one: ScoredRun, **config: object) -> ScoredRun:
    return replace(one, run=replace(one.run, config=one.run.config | config))


def with_rows(one: ScoredRun, rows: tuple[ImageRow, ...], **metrics: object) -> ScoredRun:
    return replace(one, evaluation=Evaluation(one.evaluation.metrics | metrics, rows))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScoredRun, ScoredRun]:
    """One run that finds every second region, one that finds all and flags an authentic image."""
    first = make_run(tmp_path_factory.mktemp("first"), [0.9, 0.1] * 4, [0.1, 0.1])
    return first, make_run(tmp_path_factory.mktemp("second"), [0.9] * 8, [0.9, 0.1])


def test_differences_are_means_over_pairs(runs: tuple[ScoredRun, ScoredRun]) -> None:
    one, two = runs
    found = compare({"one": one, "two": two})
    assert found.first.name == "one"
    assert not found.first.differences
    (other,) = found.others
    assert (other.name, other.common, other.only_here, other.only_first) == ("two", 10, 0, 0)
    assert list(other.differences) == list(PAIRED)
    pairs = zip(two.evaluation.rows, one.evaluation.rows, strict=True)
    f1, flagged = other.differences["pixel_f1"], other.differences["false_alarm_pixels"]
    assert f1.value == pytest.approx(np.mean([a.f1 - b.f1 for a, b in pairs if a.label])) == 0.5
    assert f1.count == 8
    assert judge("pixel_f1", f1) == "better"
    assert flagged.value == pytest.approx(50 / 600 / 2)  # pixels of one of two images
    assert judge("false_alarm_pixels", flagged) == "not clear"
    assert not other.is_same
    assert not other.scored_differently
    assert other.other_truth == 0


def test_order_of_rows_does_not_matter(runs: tuple[ScoredRun, ScoredRun]) -> None:
    one, two = runs
    turned = with_rows(two, two.evaluation.rows[::-1])
    found, expected = (compare({"one": one, "two": run}).others[0] for run in (turned, two))
    assert found.differences == expected.differences


def test_other_images_are_left_out_and_counted(runs: tuple[ScoredRun, ScoredRun]) -> None:
    one, two = runs
    (other,) = compare({"one": one, "two": with_rows(two, two.evaluation.rows[3:])}).others
    assert (other.common, other.only_here, other.only_first) == (7, 0, 3)
    assert other.differences["pixel_f1"].count == 5


def test_runs_without_common_images_have_no_difference(runs: tuple[ScoredRun, ScoredRun]) -> None:
    one, two = runs
    rows = tuple(replace(row, id=f"x{row.id}") for row in two.evaluation.rows)
    (other,) = compare({"one": one, "two": with_rows(two, rows)}).others
    assert other.common == 0
    assert {difference.count for difference in other.differences.values()} == {0}
    assert {judge(key, difference) for key, difference in other.differences.items()} == {
        "not clear"
    }


def test_other_truth_preset_and_threshold_are_found(runs: tuple[ScoredRun, ScoredRun]) -> None:
    one, two = runs
    first, *rest = two.evaluation.rows
    odd = with_rows(two, (replace(first, region=0.5), *rest), preset="mvss", threshold=0.3)
    (other,) = compare({"one": one, "two": odd}).others
    assert other.other_truth == 1
    expected = {"preset": ("mvss", "default"), "threshold": (0.3, 0.5)}
    assert other.scored_differently == expected


def test_settings_differ_by_dotted_key_but_not_by_the_runs_own_folder(
    runs: tuple[ScoredRun, ScoredRun],
) -> None:
    data = {"supervision": "pseudo", "test": []}
    one = with_config(runs[0], data=data, seed_everything=0)
    two = with_config(runs[1], data=data | {"supervision": "mask"}, extra=None)
    assert compare({"one": one, "two": two}).settings == {
        "data.supervision": ("pseudo", "mask"),
        "seed_everything": ("0", None),
        "extra": (None, "None"),
    }


def test_a_run_beside_itself_is_called_the_same_run(runs: tuple[ScoredRun, ScoredRun]) -> None:
    one, two = runs
    again, other = compare({"one": one, "again": one, "two": two}).others
    assert again.is_same
    assert other == compare({"one": one, "two": two}).others[0]
    other_seed = with_config(one, seed_everything=1)
    assert not compare({"one": one, "seed 1": other_seed}).others[0].is_same  # equal scores alone


@pytest.mark.parametrize(
    ("key", "low", "high", "judgement"),
    [
        ("pixel_f1", 0.01, 0.2, "better"),
        ("pixel_f1", -0.2, -0.01, "worse"),
        ("pixel_f1", -0.01, 0.2, "not clear"),
        ("pixel_f1", 0.0, 0.2, "not clear"),
        ("false_alarm_pixels", 0.01, 0.2, "worse"),
        ("false_alarm_pixels", -0.2, -0.1, "better"),
        ("pixel_f1", np.nan, np.nan, "not clear"),
    ],
)
def test_differences_are_judged_by_their_interval(
    key: str, low: float, high: float, judgement: str
) -> None:
    assert judge(key, Interval(0.1, low, high, 5)) == judgement
