"""Scoring a run's folder: done once, never at the cost of what was scored before."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from boxpromptiml.cli import main
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.evaluation import runs
from boxpromptiml.evaluation.robustness import read_robustness
from boxpromptiml.evaluation.runs import Run, read_state, score_run
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.manifests.sources import ground_truth, read_sources, stored_image
from boxpromptiml.metrics.pixel import score_image
from boxpromptiml.metrics.results import read_evaluation


@pytest.fixture(scope="module")
def trained(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    manifests = [f"--data.{s}=[{data_root}/{s}.jsonl]" for s in ("train", "val", "test")]
    status = main(
        ["fit", *manifests, "--data.supervision=mask", "--data.batch_size=2",
         "--model.student.backbone=mobilenetv3_small_050", "--data.input.size=[64,64]",
         "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.logger=false",
         f"--trainer.default_root_dir={folder}"]
    )  # fmt: skip
    assert status == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "run"
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("evaluation"))
    return copy


def stamps(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_second_time_nothing_is_done(run: Path) -> None:
    out = score_run(run, "test", "last")
    assert out == run / "evaluation/test/last"
    before = stamps(out)
    assert len(list((out / "predictions/prob").rglob("*.png"))) == 6
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["predictions"] == str(out / "predictions")
    assert score_run(run, "test", "last") == out
    assert stamps(out) == before


def test_scores_of_the_files_are_those_of_the_network(run: Path, data_root: Path) -> None:
    """After one epoch all probabilities lie close together: 8-bit files would make them equal."""
    scores = read_evaluation(score_run(run, "test", "last")).metrics["scores"]
    localizer = Localizer.load(run / "checkpoints" / "last.ckpt")
    sources = [s for s in read_sources([data_root / "test.jsonl"], "test") if s.sample.label]
    maps = [localizer.localize([stored_image(source)])[0].prob for source in sources]
    found = [score_image(p, ground_truth(s)) for p, s in zip(maps, sources, strict=True)]
    assert max(float(np.ptp(prob)) for prob in maps) < 0.25
    assert scores["auc"]["value"] == pytest.approx(np.mean([one.auc for one in found]), abs=1e-3)
    assert scores["pixel_f1"]["value"] == pytest.approx(np.mean([o.f1 for o in found]), abs=1e-3)


def test_files_of_others_survive_new_scores(run: Path) -> None:
    out = score_run(run, "test", "last")
    for name in ("notes.txt", "predictions/prob/notes.txt", "mine/map.png"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    (out / "scored.json").write_text("{}")
    (out / "predictions" / "prob" / "by_others.png").touch()
    before = stamps(out)
    assert score_run(run, "test", "last") == out
    assert stamps(out).keys() == before.keys()


def test_maps_of_images_that_are_no_longer_scored_go(run: Path, data_root: Path) -> None:
    out = score_run(run, "test", "last")
    path = data_root / "test.jsonl"
    whole = path.read_text()
    before = set(stamps(out))
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    try:
        score_run(run, "test", "last")
    finally:
        path.write_text(whole)
    (gone,) = before - set(stamps(out))
    assert gone.suffix == ".png"


@pytest.mark.parametrize("which", ["image", "mask"])
def test_images_and_masks_that_changed_in_place_are_scored_again(
    run: Path, data_root: Path, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = score_run(run, "test", "last")
    before = read_evaluation(out).rows
    source = next(s for s in read_sources([data_root / "test.jsonl"], "test") if s.sample.label)
    path = source.manifest.image_path(source.sample)
    if which == "mask":
        path = source.manifest.mask_path(source.sample) or path
    whole = path.read_bytes()
    pixels = np.asarray(Image.open(path))
    Image.fromarray(pixels[::-1].copy()).save(path)
    try:
        if which == "image" and source.sample.image_sha256:
            with pytest.raises(RejectedInput, match="is not the manifest's"):
                score_run(run, "test", "last")
        else:
            score_run(run, "test", "last")
            assert read_evaluation(out).rows != before
        path.unlink()
        kept = stamps(out)
        assert score_run(run, "test", "last") == out
        assert stamps(out) == kept
        assert f"{path} is not there" in capsys.readouterr().err
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["predictions", "predictions/prob"])
def test_maps_behind_a_link_are_left_alone(run: Path, tmp_path: Path, name: str) -> None:
    out = score_run(run, "test", "last")
    (out / name).rename(tmp_path / "elsewhere")
    (out / name).symlink_to(tmp_path / "elsewhere")
    (out / "scored.json").unlink()
    before = stamps(tmp_path / "elsewhere")
    score_run(run, "test", "last")
    assert not (out / name).is_symlink()
    assert stamps(tmp_path / "elsewhere") == before
    out.rename(tmp_path / "moved")
    out.symlink_to(tmp_path / "moved")
    (out / "scored.json").unlink()
    with pytest.raises(UserError, match="last: is a link"):
        score_run(run, "test", "last")


def test_scores_of_other_maps_are_not_taken_for_those_of_the_run(
    run: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = score_run(run, "test", "last")
    whole = (out / "metrics.json").read_bytes()
    words = ["evaluate", "--predictions", str(out / "predictions"), "--threshold", "0.1"]
    words += ["--manifest", str(data_root / "test.jsonl"), "--out"]
    assert main([*words, str(out)]) == 1
    assert "holds the scores of a run" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "other")]) == 0
    for name in ("metrics.json", "per_image.csv"):
        shutil.copy(tmp_path / "other" / name, out / name)
    assert read_state(out) is None
    score_run(run, "test", "last")
    assert (out / "metrics.json").read_bytes() == whole


def test_best_and_last_do_not_overwrite_each_other(run: Path) -> None:
    last = stamps(score_run(run, "test", "last"))
    assert score_run(run, "test", "best") == run / "evaluation/test/best"
    assert stamps(run / "evaluation/test/last") == last


@pytest.mark.parametrize("file", ["scored.json", "metrics.json", "per_image.csv"])
def test_what_is_damaged_is_made_again(run: Path, file: str) -> None:
    out = score_run(run, "test", "last")
    whole = (out / file).read_bytes()
    (out / file).write_bytes(whole[: len(whole) // 2])
    assert read_state(out) is None
    score_run(run, "test", "last")
    assert (out / file).read_bytes() == whole


def test_scores_stay_when_new_ones_cannot_be_made(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = score_run(run, "test", "last")
    before = stamps(out)
    (out.parents[2] / "checkpoints/last.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError):
        score_run(run, "test", "last")
    assert stamps(out) == before
    assert sorted(p.name for p in out.parent.iterdir()) == ["last"]


def test_without_checkpoint_or_data_earlier_scores_are_given_back(run: Path) -> None:
    out = score_run(run, "test", "last")
    before = stamps(out)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["test"] = ["moved/test.jsonl"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert score_run(run, "test", "last") == out
    (run / "checkpoints/last.ckpt").unlink()
    assert score_run(run, "test", "last") == out
    assert stamps(out) == before


def test_a_missing_checkpoint_is_named(run: Path) -> None:
    (run / "checkpoints/best.ckpt").unlink()
    with pytest.raises(UserError, match=r"best\.ckpt does not exist.*--checkpoint"):
        score_run(run, "test", "best")


@pytest.mark.parametrize("text", ["", "- 1", "data: 3", "a: ["])
def test_a_folder_without_a_configuration_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"config\.yaml"):
        Run.open(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml"):
        Run.open(tmp_path)


def test_a_split_without_manifests_is_named(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["test"] = None
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"data\.test names no manifest"):
        score_run(run, "test", "last")


@pytest.mark.parametrize("named", ["3", "x.jsonl", "[3]", "{a: b}", "[[a]]"])
def test_manifests_must_be_a_list_of_paths(tmp_path: Path, named: str) -> None:
    (tmp_path / "config.yaml").write_text(f"data:\n  test: {named}\n")
    with pytest.raises(UserError, match=r"config\.yaml: data\.test must be a list"):
        Run.open(tmp_path)


def test_pipes_in_a_run_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    os.mkfifo(tmp_path / "scored.json")
    os.mkfifo(tmp_path / "robustness.json")
    with pytest.raises(UserError, match="not a regular file"):
        Run.open(tmp_path)
    with pytest.raises(UserError, match="not a regular file"):
        read_robustness(tmp_path / "robustness.json")
    assert read_state(tmp_path) is None


def test_a_full_disk_leaves_the_earlier_scores(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = score_run(run, "test", "last")
    before = stamps(out)
    (out / "scored.json").unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "write_evaluation", full)
    with pytest.raises(OSError, match="No space"):
        score_run(run, "test", "last")
    left = stamps(out)
    assert left == {path: stamp for path, stamp in before.items() if path.name != "scored.json"}
    assert sorted(path.name for path in out.parent.iterdir()) == ["last"]
