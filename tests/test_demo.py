"""A tiny run of the demo: the real commands, all in this process; every test reads the same run."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from boxpromptiml import cli, demo, geometry
from boxpromptiml.errors import UserError
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Manifest, read_manifest
from boxpromptiml.manifests.sources import Source, ground_truth
from boxpromptiml.records import Split
from boxpromptiml.synth.photos import SPLIT_AREAS
from tests.helpers.commands import run as run_command
from tests.helpers.demo import TINY

KEYS = {
    "pixel_f1",
    "iou",
    "auc",
    "full_f1",
    "pseudo_iou",
    "box_iou",
    "false_alarm_pixels",
    "minutes",
    "peak_memory_gib",
}
COUNTS: dict[Split, int] = {"train": 6, "val": 2, "test": 4}


@pytest.fixture(scope="module")
def run(tiny_demo: Path) -> Path:
    """Folder of one tiny run of everything; read-only."""
    return tiny_demo


@pytest.fixture(scope="module")
def metrics(run: Path) -> dict[str, float]:
    """What the run scored."""
    found: dict[str, float] = json.loads((run / "metrics.json").read_text())
    return found


@pytest.fixture(scope="module")
def manifests(run: Path) -> dict[Split, Manifest]:
    """The forgeries of every split."""
    return {split: read_manifest(run / split / "manifest.jsonl") for split in COUNTS}


def test_the_folder_holds_report_and_numbers(run: Path, metrics: dict[str, float]) -> None:
    assert metrics.keys() == KEYS
    assert all(np.isfinite(value) for value in metrics.values())
    page = (run / "report.html").read_text()
    assert all(f"bundled_test_{number:06d}" in page for number in range(4))
    assert not list(run.rglob("*.tmp"))


def test_splits_hold_crops_of_their_own_areas(manifests: dict[Split, Manifest]) -> None:
    """Held-out forgeries are made of photographs, or halves, that training never saw."""
    for split, manifest in manifests.items():
        labels = [sample.label for sample in manifest.samples]
        assert 1 <= labels.count(1) <= COUNTS[split]  # a dull crop makes no forgery
        assert 1 <= labels.count(0) <= COUNTS[split] // 2
        assert {sample.split for sample in manifest.samples} == {split}
        areas = {area.name for area in SPLIT_AREAS[split]}
        assert {sample.group for sample in manifest.samples} <= areas
        donors = run_donors(manifest)
        assert donors <= areas


def run_donors(manifest: Manifest) -> set[str]:
    """Areas that the regions of forgeries come from."""
    paths = (manifest.path.parent / "provenance").glob("*.json")
    records = [json.loads(path.read_text()) for path in paths]
    return {Path(record["donor"]["photo"]).parent.name for record in records if record["donor"]}


def test_scores_of_boxes_and_pseudo_masks_by_hand(
    run: Path, metrics: dict[str, float], manifests: dict[Split, Manifest]
) -> None:
    full, box, pseudo = [], [], []
    for sample in manifests["test"].samples:
        area = ground_truth(Source(manifests["test"], sample)).mean() if sample.label else 0
        full += [2 * area / (1 + area)] if sample.label else []
    answered = read_manifest(run / "pseudo" / "train" / "manifest.jsonl")
    for sample in answered.samples:
        if not sample.label:
            continue
        truth = ground_truth(Source(answered, sample))
        filled = np.zeros_like(truth)
        for x0, y0, x1, y1 in sample.boxes or ():
            filled[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
        box.append((filled & truth).sum() / (filled | truth).sum())
        path = answered.pseudo_mask_path(sample)
        assert path is not None
        flagged = images.read_trimap(path) == 255
        pseudo.append((flagged & truth).sum() / (flagged | truth).sum())
    assert metrics["full_f1"] == pytest.approx(np.mean(full), abs=1e-5)
    assert metrics["box_iou"] == pytest.approx(np.mean(box))
    assert metrics["pseudo_iou"] == pytest.approx(np.mean(pseudo))


def test_scores_of_the_student_by_scikit_learn(
    run: Path, metrics: dict[str, float], manifests: dict[Split, Manifest]
) -> None:
    localizer = Localizer.load(run / "student" / "checkpoints" / "best.ckpt")
    manifest = manifests["test"]
    scores, alarms = [], []
    for sample in manifest.samples:
        flagged = localizer(manifest.image_path(sample)) > 0.5
        if sample.label:
            truth = ground_truth(Source(manifest, sample))
            scores.append(f1_score(truth.ravel(), flagged.ravel(), zero_division=0))
        else:
            alarms.append(flagged.mean())
    assert metrics["pixel_f1"] == pytest.approx(np.mean(scores), abs=2e-3)
    assert metrics["false_alarm_pixels"] == pytest.approx(np.mean(alarms), abs=2e-3)


def test_boxes_are_those_of_the_simulated_annotator(manifests: dict[Split, Manifest]) -> None:
    for sample in manifests["train"].samples:
        assert sample.box_origin == ("mask" if sample.label else None)
        if sample.label:
            truth = ground_truth(Source(manifests["train"], sample))
            held = truth[geometry.union_mask(geometry.as_array(sample.boxes or ()), sample.size)]
            assert held.sum() >= 0.9 * truth.sum()


def test_a_command_is_a_process_whose_output_goes_to_stderr(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It finds the package where this process did, and nothing in the working directory."""
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    demo._run("data_prep", "forgeries", "--help")
    written = capfd.readouterr()
    assert written.out == ""
    assert written.err.startswith("$ python -m data_prep forgeries --help\n")
    assert "--group_by" in written.err
    with pytest.raises(UserError, match="`data_prep forgeries` failed with status 2, see above"):
        demo._run("data_prep", "forgeries", "--photo=x")
    assert 0.01 < demo._peak_memory_gib() < 64


def test_a_stage_that_fails_ends_the_demo_and_leaves_the_old_results(
    run: Path, metrics: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (run / "report.html").read_bytes()
    done = []

    def until_fit(program: str, verb: str, *options: str) -> None:
        done.append(verb)
        if verb == "fit":
            raise UserError("no memory")

    monkeypatch.setattr(demo, "_run", until_fit)
    with pytest.raises(UserError, match="no memory"):
        demo.run_demo(run, TINY)
    assert done == ["forgeries"] * 3 + ["pseudo-masks"] * 2 + ["fit"]
    assert (run / "report.html").read_bytes() == page
    assert json.loads((run / "metrics.json").read_text()) == metrics


@pytest.mark.slow
def test_a_run_of_processes_gives_the_same_scores(
    metrics: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_process(program: str, verb: str, *options: str) -> None:
        ended = run_command([program, verb, *options])
        assert ended.status in (0, 3), ended.said[-2000:]

    monkeypatch.setattr(demo, "_run", in_process)
    found = demo.run_demo(tmp_path, TINY)
    measured = {"minutes", "peak_memory_gib"}
    assert {key: found[key] for key in KEYS - measured} == pytest.approx(
        {key: metrics[key] for key in KEYS - measured}, abs=1e-3
    )


def test_the_last_line_names_report_and_scores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = dict.fromkeys(KEYS, 0.5)
    monkeypatch.setattr(demo, "run_demo", lambda out, settings: scores)
    assert cli.main(["demo", f"--out={tmp_path}"]) == 0
    assert capsys.readouterr().out == (
        f"{tmp_path}/report.html: pixel F1 0.500 on held-out forgeries (flag everything: 0.500), "
        "pseudo-mask IoU 0.500 (box: 0.500), 0.5 minutes\n"
    )


def test_out_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        demo.demo(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_seed_outside_the_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--seed must be"):
        demo.demo(tmp_path / "run", seed=-1)
    assert not (tmp_path / "run").exists()


def test_help_shows_out_and_seed_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--help"]) == 0
    words = capsys.readouterr().out.replace("[", " ").split()
    options = {word.rstrip(",]") for word in words if word.startswith("--")}
    own = {"--help", "--config", "--print_config[=flags]", "--print_config", "--trust"}
    assert options - own == {"--out", "--seed"}
