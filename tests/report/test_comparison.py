"""Runs beside each other: differences pair images, and what cannot be compared is said."""

from dataclasses import replace

import numpy as np
import pytest

from boxpromptiml.metrics.results import Evaluation
from boxpromptiml.report.comparison import RunScores, compare
from boxpromptiml.report.run import ScoredRun
from tests.helpers.report_pages import make_run


def scored(one: ScoredRun, name: str, **config: object) -> RunScores:
    return RunScores(name, one.scores, one.evaluation, one.run.config | config)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScoredRun, ScoredRun]:
    """One run that finds every second region, one that finds all and flags an authentic image."""
    first = make_run(tmp_path_factory.mktemp("first"), [0.9, 0.1] * 4, [0.1, 0.1])
    return first, make_run(tmp_path_factory.mktemp("second"), [0.9] * 8, [0.9, 0.1])


def test_differences_are_means_over_pairs(runs: tuple[ScoredRun, ScoredRun]) -> None:
    found = compare([scored(runs[0], "one"), scored(runs[1], "two")])
    assert found.paired == ("Pixel F1", "Pixel IoU", "Pixel AUC", "Falsely flagged area")
    first, second = found.runs
    assert first.differences == ()
    assert second.common == 10
    f1, _, _, alarm = second.differences
    pairs = zip(runs[1].evaluation.rows, runs[0].evaluation.rows, strict=True)
    expected = np.mean([a.f1 - b.f1 for a, b in pairs if a.label])
    assert f1.value == f"+{expected:.3f}" == "+0.500"
    assert f1.images == 8
    assert f1.judgement == "better"
    assert alarm.value == "+4.2 %"  # 50 of 600 pixels, of one of two images
    assert alarm.judgement == "not clear"
    assert found.notes == ()


def test_order_of_rows_does_not_matter(runs: tuple[ScoredRun, ScoredRun]) -> None:
    one, two = scored(runs[0], "one"), scored(runs[1], "two")
    turned = replace(two, evaluation=Evaluation(two.evaluation.metrics, two.evaluation.rows[::-1]))
    assert compare([one, turned]).runs[1].differences == compare([one, two]).runs[1].differences


def test_other_images_are_left_out_and_said(runs: tuple[ScoredRun, ScoredRun]) -> None:
    one, two = scored(runs[0], "one"), scored(runs[1], "two")
    fewer = replace(two, evaluation=Evaluation(two.evaluation.metrics, two.evaluation.rows[3:]))
    found = compare([one, fewer])
    assert found.runs[1].common == 7
    assert found.runs[1].differences[0].images == 5
    (note,) = found.notes
    assert "7 images are common, 0 only of two, 3 only of one" in note


def test_runs_without_common_images_have_no_difference(runs: tuple[ScoredRun, ScoredRun]) -> None:
    one, two = scored(runs[0], "one"), scored(runs[1], "two")
    rows = tuple(replace(row, id=f"x{row.id}") for row in two.evaluation.rows)
    found = compare([one, replace(two, evaluation=Evaluation(two.evaluation.metrics, rows))])
    assert found.runs[1].common == 0
    assert {d.value for d in found.runs[1].differences} == {"–"}  # noqa: RUF001
    assert {d.judgement for d in found.runs[1].differences} == {"not clear"}


def test_other_truth_preset_and_threshold_are_said(runs: tuple[ScoredRun, ScoredRun]) -> None:
    one, two = scored(runs[0], "one"), scored(runs[1], "two")
    first, *rest = two.evaluation.rows
    metrics = two.evaluation.metrics | {"preset": "mvss", "threshold": 0.3}
    odd = Evaluation(metrics, (replace(first, region=0.5), *rest))
    notes = " ".join(compare([one, replace(two, evaluation=odd)]).notes)
    assert "1 common image has another ground truth in two than in one." in notes
    assert "preset mvss, not default" in notes
    assert "threshold 0.3, not 0.5" in notes


def test_settings_differ_by_dotted_key_but_not_by_the_runs_own_folder(
    runs: tuple[ScoredRun, ScoredRun],
) -> None:
    data = {"supervision": "pseudo", "test": []}
    found = compare(
        [
            scored(runs[0], "one", data=data, seed_everything=0),
            scored(runs[1], "two", data=data | {"supervision": "mask"}, extra=None),
        ]
    )
    assert {setting.key: setting.values for setting in found.settings} == {
        "data.supervision": ("pseudo", "mask"),
        "seed_everything": ("0", "not set"),
        "extra": ("not set", "None"),
    }


def test_a_run_beside_itself_is_called_the_same_run(runs: tuple[ScoredRun, ScoredRun]) -> None:
    one, two = scored(runs[0], "one"), scored(runs[1], "two")
    found = compare([one, replace(one, name="again"), two])
    assert found.notes == ("again and one are the same run: there is nothing to compare.",)
    assert {d.judgement for d in found.runs[1].differences} == {"same run"}
    assert found.runs[2].differences == compare([one, two]).runs[1].differences
    other_seed = replace(one, name="seed 1", config={**one.config, "seed_everything": 1})
    assert compare([one, other_seed]).notes == ()  # equal scores alone are no proof
