"""A run's folder becomes a page: what it says is what the files say."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest, write_manifest
from boxpromptiml.metrics.results import read_evaluation
from boxpromptiml.records import Box
from boxpromptiml.report import build
from boxpromptiml.report import text as wording
from boxpromptiml.report.build import build_report
from boxpromptiml.report.page import Report, render
from boxpromptiml.report.run import ScoredRun
from boxpromptiml.report.summary import sure_words
from boxpromptiml.report.training import read_audit, what_was_taught
from tests.helpers.report_pages import HOSTILE, Page, make_run

PROBS, AUTHENTIC = [0.9, 0.1, 0.9, 0.1], [0.9, 0.1]


@pytest.fixture
def scored(tmp_path: Path) -> ScoredRun:
    return make_run(tmp_path / "mine", PROBS, AUTHENTIC)


def answers(report: Report) -> dict[str, str]:
    return dict(report.summary)


def test_summary_says_what_was_trained_scored_and_found(scored: ScoredRun) -> None:
    found = answers(build_report([scored], None))
    assert found["Trained"] == (
        "A student on tiny with weights that started at random learnt for 3 epochs from 6 images "
        "of data set “set”: 4 manipulated, taught by pseudo-masks of the grabcut teacher, and 2 "
        "authentic. The boxes were of an origin that nobody recorded. Best of 3 "
        "validations: after epoch 2 (F1 0.400); best.ckpt is from then."
    )
    assert (
        "best.ckpt on the test images of data set “set”: 4 manipulated and 2 auth"
        in (found["Scored"])
    )
    assert "With a mean pixel F1 of 0.500 [" in found["How good"]
    assert "falsely flags 4.2 %" in found["How good"]
    own = "over 4 images with an F1, where each image counts as its own group"
    assert own in found["How sure"]
    assert found["How sure"].endswith("With only 4 groups they are too narrow.")
    assert found["Where it fails"].startswith("2 of the 4 manipulated images have an F1 below 0.5")
    assert "Other runs" not in found


def test_training_images_are_counted_as_fit_chooses_them(scored: ScoredRun) -> None:
    manifest = read_manifest(scored.run.manifests("train")[0])
    boxed = [replace(s, box_origin="human" if s.id < "tset/c" else "cam") for s in manifest.samples]
    unboxed = replace(boxed[0], id="u", boxes=None, pseudo_mask=None, box_origin=None)
    test = replace(boxed[0], id="v", split="test")
    some = replace(manifest, samples=(*boxed, unboxed, test))

    def taught(**data: object):
        return what_was_taught({"data": data}, [some])

    assert taught().annotations == {"pseudo": 4}
    assert taught().origins == {"human": 2, "cam": 2}
    assert taught().authentic == 2
    assert taught(include_authentic=False).authentic == 0
    assert taught(train_fraction=0.4).annotations == {"pseudo": 2}
    assert taught(supervision="mask").origins == {}
    mixed = taught(supervision="mixed", weights={"pseudo": 1.0, "cam": 0.0, "label": 0.2})
    assert mixed.annotations == {"pseudo": 2, "label": 3}
    with pytest.raises(UserError, match=r"data\.weights"):
        taught(supervision="mixed", weights={"nothing": 1})


def test_origins_of_boxes_are_told_apart(scored: ScoredRun) -> None:
    path = scored.run.manifests("train")[0]
    manifest = read_manifest(path)
    origins = ["human", "mask", "cam", "cam", None, None]
    samples = [
        replace(sample, box_origin=origin, boxes=sample.boxes or (Box(1, 1, 5, 5),))
        for sample, origin in zip(manifest.samples, origins, strict=True)
    ]
    write_manifest(path, manifest.header, samples)
    trained = answers(build_report([scored], None))["Trained"]
    assert "drawn by people (1)" in trained
    assert "image labels only (2)" in trained
    assert "from the ground-truth masks (1)" in trained


def test_scores_are_those_of_the_evaluation_with_blind_maps_beside(scored: ScoredRun) -> None:
    found = build_report([scored], None).scores
    given = scored.evaluation.metrics["scores"]
    assert found["pixel_f1"].value == given["pixel_f1"]["value"]
    assert found["pixel_f1"].low == given["pixel_f1"]["low"]
    assert found["pixel_f1"].count == 4
    region = 50 / 600
    assert found["full_f1"].value == pytest.approx(2 * region / (1 + region), abs=1e-5)
    assert found["empty_f1"].value == 0


def test_image_scores_stand_beside_those_of_calling_all_manipulated(scored: ScoredRun) -> None:
    labels, answer = [1] * 4 + [0] * 2, [1] * 6
    found = build_report([scored], None)
    assert found.scores["all_image_f1"].value == pytest.approx(f1_score(labels, answer))
    accuracy = found.scores["all_image_accuracy"]
    assert (accuracy.value, accuracy.count) == (pytest.approx(accuracy_score(labels, answer)), 6)
    rows = [row.name for row in wording.grouped(found.scores)["Whole images"]]
    assert rows[rows.index("Image F1") :] == [
        "Image F1",
        "Image F1 without looking",
        "Image accuracy",
        "Image accuracy without looking",
    ]
    metrics = scored.evaluation.metrics | {"preset": "mvss"}  # of sensitivity and specificity
    of_rates = replace(scored, evaluation=replace(scored.evaluation, metrics=metrics))
    assert of_rates.scores["all_image_f1"].value == 0
    some = replace(scored.evaluation, rows=scored.evaluation.rows[:4])
    assert "all_image_f1" not in replace(scored, evaluation=some).scores


def test_how_sure_counts_the_groups_that_have_an_f1(scored: ScoredRun) -> None:
    def sure(f1: float) -> str:
        first = scored.evaluation.rows[0]
        rows = [replace(first, group=str(number % 30), f1=1.0) for number in range(60)]
        rows[::30] = [replace(row, f1=f1) for row in rows[::30]]  # all of one group
        return sure_words(replace(scored.evaluation, rows=tuple(rows)))

    shared = "60 images with an F1, in 30 groups of images that share a source."
    assert shared in sure(1.0)
    assert "too narrow" not in sure(1.0)
    assert sure(np.nan).endswith("With only 29 groups they are too narrow.")


def test_blind_maps_are_of_the_default_policy_only(scored: ScoredRun) -> None:
    metrics = scored.evaluation.metrics | {"preset": "mvss"}
    other = replace(scored, evaluation=replace(scored.evaluation, metrics=metrics))
    assert "full_f1" not in build_report([other], None).scores
    assert "preset mvss" in answers(build_report([other], None))["Scored"]


def test_groups_are_lowest_first_and_authentic_is_no_kind(scored: ScoredRun) -> None:
    tables = {table.title: table for table in build_report([scored], None).groups}
    kinds = tables["By forgery kind"]
    assert [group.name for group in kinds.groups] == ["removal", "splice"]
    assert [group.scores[0].value for group in kinds.groups] == ["0.000", "1.000"]
    assert "Falsely flagged area" not in kinds.columns
    assert "Falsely flagged area" in tables["By data set"].columns
    assert [group.name for group in tables["By region size"].groups] == ["5% to 15%"]


def test_gallery_shows_stored_pixels_and_authentic_alarms(scored: ScoredRun) -> None:
    gallery = build_report([scored], None).gallery
    assert [row.entry.id for row in gallery.rows] == ["set/b", "set/d", "set/a", "set/c"]
    captions = [panel.caption for panel in gallery.rows[0].panels]
    assert captions == ["Image and box", "Prediction", "Ground truth"]
    assert "highest probability 0.10" in gallery.rows[0].panels[1].alt
    assert [row.entry.id for row in gallery.alarms] == ["set/e"]
    assert gallery.alarms[0].entry.flagged == pytest.approx(50 / 600)


@pytest.mark.parametrize("lost", ["0.png", "m0.png", "test.jsonl"])
def test_lost_files_are_said_in_their_place(scored: ScoredRun, lost: str) -> None:
    (scored.run.folder / "data" / lost).unlink()
    gallery = build_report([scored], None).gallery
    (panel,) = next(row.panels for row in gallery.rows if row.entry.id == "set/a")
    assert panel.uri == ""
    assert "cannot be shown" in panel.alt
    whole = [row for row in gallery.rows if len(row.panels) == 3]
    assert len(whole) == (0 if lost == "test.jsonl" else 3)
    assert scored.evaluation.rows[0].f1 == 1


def test_a_picture_that_is_no_map_is_not_shown_as_one(scored: ScoredRun) -> None:
    prob = scored.folder / "predictions" / "prob" / "set" / "a.png"
    shutil.copy(scored.run.folder / "data" / "0.png", prob)  # colour, not a map
    rows = build_report([scored], None).gallery.rows
    (panel,) = next(row.panels for row in rows if row.entry.id == "set/a")
    assert "cannot be shown" in panel.alt


def test_hostile_ids_stay_text(tmp_path: Path) -> None:
    odd = [HOSTILE, "=1+1", "a\u202eb", "two\nlines", "<b>", "صورة"]
    found = Page(render(build_report([make_run(tmp_path / "r", PROBS, AUTHENTIC, odd)], None)))
    calm = Page(render(build_report([make_run(tmp_path / "c", PROBS, AUTHENTIC)], None)))
    tags = [
        [tag for tag, _ in page.elements if tag not in ("g", "path", "use")]
        for page in (found, calm)
    ]
    assert sorted(tags[0]) == sorted(tags[1])
    assert {HOSTILE, "=1+1", "a\\u202eb", "two\\u000alines"} <= set(found.texts("h4"))


def test_runs_are_compared_and_named_apart(tmp_path: Path) -> None:
    one = make_run(tmp_path / "a" / "run", PROBS, AUTHENTIC)
    two = make_run(tmp_path / "b" / "run", [0.9] * 4, AUTHENTIC)
    report = build_report([one, two], None)
    names = [run.name for run in report.comparison.runs]
    assert names == ["a/run", "b/run"]
    assert "F1 +0.500 [" in answers(report)["Other runs"]
    assert report.scores["pixel_f1"].value == 0.5
    legends = [plot.svg for plot in report.plots if plot.name == "roc"]
    assert "b/run" in legends[0]


def test_a_run_beside_itself_is_numbered(scored: ScoredRun) -> None:
    report = build_report([scored, scored], None)
    assert [run.name for run in report.comparison.runs] == ["mine (1)", "mine (2)"]
    assert {d.judgement for d in report.comparison.runs[1].differences} == {"same run"}
    said = "mine (2) and mine (1) are the same run: there is nothing to compare."
    assert report.comparison.notes == (said,)
    assert "(same run)" in answers(report)["Other runs"]
    assert report.comparison.settings == ()


def test_audit_of_the_pseudo_masks_is_read_from_their_job(scored: ScoredRun) -> None:
    (audit,) = build_report([scored], None).audits
    facts = {name: value for name, value, _ in audit.facts}
    assert facts["Mean IoU"] == "0.748"
    assert facts["Images: ok"] == "4"
    assert facts["Unsure pixels"] == "5.0 %"
    assert audit.worst == (("tset/a", 0.1177),)


def test_worst_pseudo_masks_are_shown_or_said_to_be_gone(scored: ScoredRun) -> None:
    (row,) = build_report([scored], None).worst_pseudo_masks
    assert row.entry.id == "tset/a"
    assert "cannot be shown" in row.panels[0].alt  # p.png is not there
    levels = np.zeros((20, 30), np.uint8)
    levels[:2] = 255
    images.write_png(scored.run.folder / "data" / "p.png", levels)
    (row,) = build_report([scored], None).worst_pseudo_masks
    assert [panel.caption for panel in row.panels] == [
        "Image and box",
        "Pseudo-mask",
        "Ground truth",
    ]
    assert "10.0% of the pixels manipulated" in row.panels[1].alt
    assert (row.entry.kind, row.entry.iou) == ("splice", 0.1177)


def test_missing_parts_say_why(scored: ScoredRun) -> None:
    folder = scored.run.folder
    (folder / "data" / "summary.json").unlink()
    (folder / "metrics.csv").unlink()
    report = build_report([scored], None)
    assert "no summary.json" in report.audits
    reasons = {plot.name: plot.caption for plot in report.plots if not plot.svg}
    assert "`boxpromptiml robustness" in reasons["robustness"]
    assert "metrics.csv" in reasons["training"]
    (folder / "data" / "train.jsonl").unlink()
    report = build_report([scored], None)
    assert "train.jsonl is not there" in answers(report)["Trained"]
    assert "train.jsonl is not there" in report.audits


def test_damaged_summary_names_its_file(scored: ScoredRun) -> None:
    path = scored.run.folder / "data" / "summary.json"
    for text in ("{", "[]", '{"teacher": {}}', '{"teacher": {"name": "x"}, "audit": 3}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"summary\.json"):
            read_audit(path.with_name("train.jsonl"))


def test_robustness_is_drawn_where_it_was_measured(scored: ScoredRun) -> None:
    names = ("pixel_f1", "iou", "auc", "false_alarm_pixels")
    score = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 4}
    rows = [
        {"name": name, "level": level} | dict.fromkeys(names, score)
        for name, level in (("none", None), ("jpeg", 90), ("jpeg", 50), ("weibo", None))
    ]
    settings = dict.fromkeys(("checkpoint", "manifests", "threshold", "seed", "segmenter"))
    found = {"schema_version": 1, "split": "test", "conditions": rows} | settings
    path = scored.run.folder / "robustness" / "robustness.json"
    path.parent.mkdir()
    path.write_text(json.dumps(found))
    (plot,) = [p for p in build_report([scored], None).plots if p.name == "robustness"]
    assert plot.svg.startswith("<svg")
    assert ("jpeg", "50", "0.500", "[0.400, 0.600]") in plot.rows


def test_checksums_are_of_the_files(scored: ScoredRun) -> None:
    from boxpromptiml.io.files import sha256_file

    found = build_report([scored], None).checksums
    names = {Path(path).name for path in found}
    assert names == {
        "best.ckpt",
        "config.yaml",
        "train.jsonl",
        "test.jsonl",
        "metrics.json",
        "per_image.csv",
    }
    assert all(sha256_file(Path(path)) == digest for path, digest in found.items())


def test_command_writes_page_and_plots_twice_the_same(
    scored: ScoredRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []
    monkeypatch.setattr(build, "score_run", lambda *a: calls.append(a) or scored.folder)
    folder = scored.run.folder
    build.report(folder, split="test", checkpoint="best")
    first = (folder / "report.html").read_bytes()
    assert capsys.readouterr().out.startswith(f"{folder}/report.html: pixel F1 0.500, 0.")
    names = ("threshold", "precision-recall", "roc", "training-loss", "validation")
    files = {p.name: p.read_bytes() for p in (folder / "plots").iterdir()}
    assert set(files) == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    build.report(folder, out=folder / "again.html")
    assert (folder / "again.html").read_bytes() == first
    assert files == {p.name: p.read_bytes() for p in (folder / "plots").iterdir()}
    assert calls == [(folder, "test", "best", "cpu")] * 2
    assert Page(first.decode()).texts("h1") == ["Run mine"]


def test_page_holds_thumbnails_not_images(tmp_path: Path) -> None:
    scored = make_run(tmp_path / "r", [0.9] * 4)
    assert len(render(build_report([scored], None))) < 250_000
    assert read_evaluation(scored.folder).rows == scored.evaluation.rows
    assert not np.isnan([row.f1 for row in scored.evaluation.rows]).any()
