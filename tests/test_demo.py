"""A tiny run of the demo's stages: the files, the numbers' names, the same bytes for a seed."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml import demo
from boxpromptiml.cli import main
from boxpromptiml.errors import UserError
from boxpromptiml.inference.localize import localize
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.manifests.sources import Source, ground_truth
from boxpromptiml.models.configs import FusionConfig, StudentConfig
from boxpromptiml.records import Split
from boxpromptiml.synth.photos import SPLIT_AREAS

KEYS = {
    "pixel_f1",
    "iou",
    "auc",
    "empty_f1",
    "full_f1",
    "pseudo_iou",
    "box_iou",
    "false_alarm_pixels",
    "minutes",
    "peak_memory_gib",
}
TINY = demo.DemoSettings(
    forgeries=(6, 2, 3),
    authentic=0.5,
    side=96,
    crop=64,
    student=StudentConfig(
        "mobilenetv3_small_100", "srm", stages=(1, 2), fusion=FusionConfig(width=8, prototypes=4)
    ),
    epochs=1,
    validate_every=1,
    batch_size=4,
    workers=0,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """One tiny run of everything; read-only."""
    out = tmp_path_factory.mktemp("demo") / "run"
    return out, demo.run_demo(out, TINY)


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_folder_holds_report_numbers_and_student(run: tuple[Path, dict[str, float]]) -> None:
    out, metrics = run
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert set(metrics) == KEYS
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["empty_f1"] == 0
    page = (out / "report.html").read_text()
    assert all(f"test_{number:04d}" in page for number in range(3))
    assert "motorcycle_left, rocket" in page
    assert not list(out.rglob("*.tmp"))


def test_baselines_and_supervision_scores_by_hand(run: tuple[Path, dict[str, float]]) -> None:
    out, metrics = run
    manifest = read_manifest(out / "pseudo" / "manifest.jsonl")
    full, box, pseudo = [], [], []
    for sample in manifest.samples:
        if not sample.label:
            continue
        truth = ground_truth(Source(manifest, sample))
        if sample.split == "test":
            full.append(2 * truth.mean() / (1 + truth.mean()))
        if sample.split == "train":
            filled = np.zeros_like(truth)
            for x0, y0, x1, y1 in sample.boxes or ():
                filled[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
            box.append((filled & truth).sum() / (filled | truth).sum())
            path = manifest.pseudo_mask_path(sample)
            assert path is not None
            flagged = images.read_trimap(path) == 255
            pseudo.append((flagged & truth).sum() / (flagged | truth).sum())
    assert metrics["full_f1"] == pytest.approx(np.mean(full))
    assert metrics["box_iou"] == pytest.approx(np.mean(box))
    assert metrics["pseudo_iou"] == pytest.approx(np.mean(pseudo))


def test_scores_of_the_student_by_scikit_learn(run: tuple[Path, dict[str, float]]) -> None:
    from sklearn.metrics import f1_score, roc_auc_score

    out, metrics = run
    manifest = read_manifest(out / "manifest.jsonl")
    localizer = Localizer.load(out / "student.ckpt")
    scores, areas, alarms = [], [], []
    for sample in manifest.samples:
        if sample.split != "test":
            continue
        prob = localizer(manifest.image_path(sample))
        truth = ground_truth(Source(manifest, sample)).ravel()
        if sample.label:
            scores.append(f1_score(truth, prob.ravel() > 0.5, zero_division=0))
            areas.append(roc_auc_score(truth, prob.ravel()))
        else:
            alarms.append((prob > 0.5).mean())
    assert metrics["pixel_f1"] == pytest.approx(np.mean(scores))
    assert metrics["auc"] == pytest.approx(np.mean(areas))
    assert metrics["false_alarm_pixels"] == pytest.approx(np.mean(alarms))


def test_manifest_keeps_the_areas_of_splits_apart(
    run: tuple[Path, dict[str, float]],
) -> None:
    manifest = read_manifest(run[0] / "manifest.jsonl")
    count = {"train": 0, "val": 0, "test": 0}
    for sample in manifest.samples:
        assert sample.group in {area.name for area in SPLIT_AREAS[sample.split]}
        assert images.probe(manifest.image_path(sample)).format == "JPEG"
        count[sample.split] += sample.label or 0
        assert (sample.label == 0) == (sample.boxes == ())
    assert count == {"train": 6, "val": 2, "test": 3}
    groups: dict[Split, set[str]] = {
        split: {s.group for s in manifest.samples if s.split == split} for split in SPLIT_AREAS
    }
    assert not groups["train"] & (groups["val"] | groups["test"])
    assert not groups["val"] & groups["test"]


def test_authentic_images_are_compressed_as_their_forgeries(
    run: tuple[Path, dict[str, float]],
) -> None:
    from PIL import Image

    manifest = read_manifest(run[0] / "manifest.jsonl")
    authentic = [sample for sample in manifest.samples if sample.label == 0]
    assert authentic
    for sample in authentic:
        path = manifest.image_path(sample)
        forged = path.with_name(path.name.replace("_authentic", ""))
        with Image.open(path) as one, Image.open(forged) as other:
            assert one.quantization == other.quantization  # type: ignore[attr-defined]


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    demo.make_forgeries(tmp_path / "a", TINY)
    demo.make_forgeries(tmp_path / "b", TINY)
    demo.make_forgeries(tmp_path / "c", replace(TINY, seed=1))
    one, same, other = (hashes(tmp_path / name) for name in "abc")
    assert one == same
    assert one.keys() != other.keys() or not set(one.values()) & set(other.values())


def test_a_second_run_into_the_folder_repeats_the_numbers(
    run: tuple[Path, dict[str, float]],
) -> None:
    out, first = run
    second = demo.run_demo(out, TINY)
    measured = {"minutes", "peak_memory_gib"}
    assert {k: v for k, v in first.items() if k not in measured} == {
        k: v for k, v in second.items() if k not in measured
    }


def test_the_student_localizes(run: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    out, _ = run
    assert localize(out / "student.ckpt", [str(out / "photos")], tmp_path) == 0
    assert (tmp_path / "prob" / "test_0000.png").exists()


def test_an_interrupted_run_leaves_the_old_results(
    run: tuple[Path, dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = run
    names = ("report.html", "metrics.json", "student.ckpt")
    before = {name: (out / name).read_bytes() for name in names}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(out, TINY)
    assert before == {name: (out / name).read_bytes() for name in names}
    assert not list(out.rglob("*.tmp"))


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
    assert main(["demo", "--help"]) == 0
    words = capsys.readouterr().out.replace("[", " ").split()
    options = {word.rstrip(",]") for word in words if word.startswith("--")}
    assert options <= {
        "--out",
        "--seed",
        "--help",
        "--config",
        "--print_config[=flags]",
        "--print_config",
    }
    assert {"--out", "--seed"} <= options
