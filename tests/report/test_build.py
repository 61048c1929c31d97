"""A run's folder becomes a page: what it says is what the files say."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest, write_manifest
from boxpromptiml.metrics.results import read_evaluation
from boxpromptiml.records import Box, BoxOrigin
from boxpromptiml.report import build
from boxpromptiml.report.build import build_report
from boxpromptiml.report.page import Report, render
from boxpromptiml.report.run import ScoredRun
from boxpromptiml.report.training import Training
from tests.helpers.report_pages import HOSTILE, Page, make_run

PROBS, AUTHENTIC = [0.9, 0.1, 0.9, 0.1], [0.9, 0.1]


@pytest.fixture
def scored(tmp_path: Path) -> ScoredRun:
    return make_run(tmp_path / "mine", PROBS, AUTHENTIC)


@pytest.fixture
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than all else in a report."""
    monkeypatch.setattr(build, "_plots", lambda *_: ())


without_plots = pytest.mark.usefixtures("_no_plots")


def answers(report: Report) -> dict[str, str]:
    return Page(render(report)).answers()


def names_of(report: Report) -> list[str]:
    assert report.comparison is not None
    return [run.name for run in (report.comparison.first, *report.comparison.others)]


def training(report: Report) -> Training:
    assert isinstance(report.training, Training)
    return report.training


def test_summary_says_what_was_trained_scored_and_found(scored: ScoredRun) -> None:
    found = answers(build_report([scored], None))
    assert found["Trained"] == (
        "Student on tiny (random init), trained for 3 epochs on 6 images of dataset “set”: 4 "
        "manipulated (GrabCut pseudo-masks), 2 authentic. Boxes: of unrecorded origin. Best of 3 "
        "validations: epoch 2 (F1 0.400), whose weights are in best.ckpt."
    )
    assert "best.ckpt on the test images of dataset “set”: 4 manipulated and 2" in found["Scored"]
    assert "With a mean pixel F1 of 0.500 [" in found["How good"]
    assert "On authentic images the pixel FPR is 4.2 %" in found["How good"]
    own = "over 4 images with an F1, where each image is its own group"
    assert own in found["How sure"]
    assert found["How sure"].endswith("With only 4 groups they are too narrow.")
    assert found["Where it fails"].startswith("2 of the 4 manipulated images have an F1 below 0.5")
    assert "Other runs" not in found


@without_plots
def test_origins_of_boxes_are_told_apart(scored: ScoredRun) -> None:
    path = scored.run.manifests("train")[0]
    manifest = read_manifest(path)
    origins: list[BoxOrigin | None] = ["human", "mask", "cam", "cam", None, None]
    samples = [
        replace(sample, box_origin=origin, boxes=sample.boxes or (Box(1, 1, 5, 5),))
        for sample, origin in zip(manifest.samples, origins, strict=True)
    ]
    write_manifest(path, manifest.header, samples)
    trained = answers(build_report([scored], None))["Trained"]
    assert "drawn by people (1)" in trained
    assert "a network trained on image labels (2)" in trained
    assert "from the ground-truth masks (1)" in trained


@without_plots
def test_gallery_shows_stored_pixels_and_authentic_alarms(scored: ScoredRun) -> None:
    gallery = build_report([scored], None).gallery
    assert [row.id for row in gallery.shown] == ["set/b", "set/d", "set/a", "set/c"]
    captions = [panel.caption for panel in gallery.shown[0].panels]
    assert captions == ["Image and box", "Prediction", "Ground truth"]
    assert "highest probability 0.10" in gallery.shown[0].panels[1].alt
    assert [row.id for row in gallery.shown_authentic] == ["set/e"]
    assert gallery.shown_authentic[0].flagged == pytest.approx(50 / 600)


@without_plots
@pytest.mark.parametrize("lost", ["0.png", "m0.png", "test.jsonl"])
def test_lost_files_are_said_in_their_place(scored: ScoredRun, lost: str) -> None:
    (scored.run.folder / "data" / lost).unlink()
    gallery = build_report([scored], None).gallery
    (panel,) = next(row.panels for row in gallery.shown if row.id == "set/a")
    assert panel.uri == ""
    assert "cannot be shown" in panel.alt
    whole = [row for row in gallery.shown if len(row.panels) == 3]
    assert len(whole) == (0 if lost == "test.jsonl" else 3)
    assert scored.evaluation.rows[0].f1 == 1


@without_plots
def test_a_picture_that_is_no_map_is_not_shown_as_one(scored: ScoredRun) -> None:
    prob = scored.folder / "predictions" / "prob" / "set" / "a.png"
    shutil.copy(scored.run.folder / "data" / "0.png", prob)  # colour, not a map
    rows = build_report([scored], None).gallery.shown
    (panel,) = next(row.panels for row in rows if row.id == "set/a")
    assert "cannot be shown" in panel.alt


@without_plots
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
    assert names_of(report) == ["a/run", "b/run"]
    assert "F1 +0.500 [" in answers(report)["Other runs"]
    assert report.scores["pixel_f1"].value == 0.5
    legends = [plot.svg for plot in report.plots if plot.name == "roc"]
    assert "b/run" in legends[0]


@without_plots
def test_a_run_beside_itself_is_numbered(scored: ScoredRun) -> None:
    report = build_report([scored, scored], None)
    assert names_of(report) == ["mine (1)", "mine (2)"]
    page = Page(render(report))
    said = "mine (2) and mine (1) are the same run: there is nothing to compare."
    assert said in page.texts("p")
    assert "(same run)" in page.answers()["Other runs"]
    assert "The runs have the same settings." in page.texts("p")


@without_plots
def test_audit_of_the_pseudo_masks_is_read_from_their_job(scored: ScoredRun) -> None:
    report = build_report([scored], None)
    (audit,) = training(report).audits
    assert audit.worst == (("tset/a", 0.1177),)
    rows = Page(render(report)).texts("tr")
    for start, end in (("Mean IoU", "0.748"), ("Images: ok", "4"), ("Unsure pixels", "5.0 %")):
        assert any(row.startswith(start) and row.endswith(end) for row in rows)


@without_plots
def test_worst_pseudo_masks_are_shown_or_said_to_be_gone(scored: ScoredRun) -> None:
    (row,) = build_report([scored], None).worst_pseudo_masks
    assert row.id == "tset/a"
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
    assert (row.kind, row.iou) == ("splice", 0.1177)


def test_missing_parts_are_left_out(scored: ScoredRun) -> None:
    folder = scored.run.folder
    (folder / "data" / "summary.json").unlink()
    (folder / "metrics.csv").unlink()
    page = Page(render(build_report([scored], None)))
    assert page.texts("h3")[-3:] == ["F1 by threshold", "Precision and recall", "Pixel ROC"]
    assert "Pseudo-masks" not in page.texts("h2")
    (folder / "data" / "train.jsonl").unlink()
    page = Page(render(build_report([scored], None)))
    assert "train.jsonl is not there" in page.answers()["Trained"]


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


@without_plots
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
    calls: list[object] = []

    def score(*arguments: object) -> Path:
        calls.append(arguments)
        return scored.folder

    monkeypatch.setattr(build, "score_run", score)
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
    with pytest.raises(UserError, match=r"must end in \.html"):
        build.report(folder, out=folder / "config.yaml")
    assert calls == [(folder, "test", "best", "auto")] * 2
    assert Page(first.decode()).texts("h1") == ["Run mine"]


def test_page_holds_thumbnails_not_images(tmp_path: Path) -> None:
    scored = make_run(tmp_path / "r", [0.9] * 4)
    assert len(render(build_report([scored], None))) < 250_000
    assert read_evaluation(scored.folder).rows == scored.evaluation.rows
    assert not np.isnan([row.f1 for row in scored.evaluation.rows]).any()
