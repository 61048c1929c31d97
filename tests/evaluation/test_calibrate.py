"""Calibration of a checkpoint on validation images, and the copy that it writes."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml import Localizer
from boxpromptiml.cli import main
from boxpromptiml.errors import UserError
from boxpromptiml.evaluation.calibrate import (
    RATES,
    calibrate_localizer,
    calibration_report,
    measure,
)
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.export import describe
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io.weights import load_weights, save_checkpoint
from boxpromptiml.manifests.sources import Sources, read_sources, stored_image
from boxpromptiml.metrics.calibration import fit_platt
from boxpromptiml.metrics.pixel import pixel_fpr
from boxpromptiml.records import ImageArray, ProbArray
from tests.helpers.data import make_manifest
from tests.helpers.models import SPECS, brightness, make_network

SPEC = SPECS["student"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images with a bright ellipse and twelve without."""
    return make_manifest(tmp_path_factory.mktemp("data"), "val", 16, 12).path


@pytest.fixture(scope="module")
def sources(manifest: Path) -> Sources:
    return read_sources([manifest], "val")


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """One network, rounded to half precision, as student.safetensors and student.ckpt."""
    path = tmp_path / "student.safetensors"
    network = make_network(SPEC)
    write_safetensors(path, network, describe(network, SPEC), half=True)
    state = {
        f"student.{name}": value for name, value in load_localizer(path)[0].state_dict().items()
    }
    content = {"state_dict": state, "boxpromptiml": SPEC.to_dict(), "global_step": 7}
    save_checkpoint(path.with_suffix(".ckpt"), content)
    return path


def test_thresholds_have_the_rates_that_they_are_for(sources: Sources) -> None:
    """By the maps of the localizer itself, with the FPR of `evaluate`."""
    localizer = Localizer(brightness, SPEC)
    report = calibrate_localizer(localizer, sources, folds=3)
    found = report.calibration
    authentic = [s.manifest.image_path(s.sample) for s in sources if s.sample.label == 0]
    maps = localizer(authentic)
    assert [rate for rate, _ in found.pixel_thresholds] == list(RATES)
    for rate, threshold in found.pixel_thresholds:
        above = np.mean([pixel_fpr(prob, threshold) for prob in maps])
        assert rate / 2 < above <= rate + 1e-9
    assert (found.images, found.authentic, found.pixels) == (28, 12, 12 * 64 * 96)
    assert found.image_thresholds[0][0] == 0.1  # one of twelve is the least that can be seen
    assert report.pixel_fpr == pytest.approx(RATES, rel=0.5)


def test_the_probability_separates_what_the_network_separates(sources: Sources) -> None:
    report = calibrate_localizer(Localizer(brightness, SPEC), sources)
    calibrated = Localizer(brightness, replace(SPEC, calibration=report.calibration))
    for source in sources:
        (found,) = calibrated.localize([stored_image(source)])
        assert (found.score > 0.5) == (source.sample.label == 1)
    assert report.after.ece < report.before.ece
    assert report.calibration.ece == report.after.ece
    again = calibrate_localizer(calibrated, sources)
    assert again.calibration == report.calibration  # the one it has is not used


def test_images_without_a_label_are_left_out(sources: Sources) -> None:
    unknown = [s._replace(sample=replace(s.sample, label=None)) for s in sources[:3]]
    report = calibrate_localizer(Localizer(brightness, SPEC), [*unknown, *sources[3:]])
    assert (report.unlabelled, report.calibration.images) == (3, 25)


def test_images_that_cannot_be_read_are_left_out_and_counted(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_manifest(tmp_path / "data", "val", 16, 12)
    for sample in (made.samples[0], made.samples[-1]):
        made.image_path(sample).write_bytes(b"no image")
    words = [
        f"--checkpoint={student}",
        f"--manifest={made.path}",
        f"--out={tmp_path / 'c.safetensors'}",
    ]
    assert main(["calibrate", *words]) == 3
    said = capsys.readouterr()
    counts = "26 images: 15 manipulated, 11 authentic (0 without a label, 2 that cannot be read"
    assert counts in said.out
    assert said.err.count("left out") == 2
    assert (tmp_path / "c.safetensors").is_file()


def test_folds_may_come_from_different_localizers(sources: Sources) -> None:
    """Each is measured on its own images, and all are pooled."""
    halves = [sources[::2], sources[1::2]]
    parts = [measure(Localizer(brightness, SPEC), half) for half in halves]
    found = calibration_report(parts).calibration
    whole = measure(Localizer(brightness, SPEC), sources)
    np.testing.assert_allclose(parts[1].logits, whole.logits[1::2], atol=1e-4)
    platt = fit_platt(whole.logits, whole.manipulated)
    assert (found.temperature, found.bias) == pytest.approx(
        (platt.temperature, platt.bias), abs=1e-2
    )
    assert (found.images, found.authentic) == (28, 12)


def test_temperature_alone_has_no_bias(sources: Sources) -> None:
    report = calibrate_localizer(Localizer(brightness, SPEC), sources, "temperature")
    assert report.calibration.bias == 0


def test_too_few_images_are_said(sources: Sources) -> None:
    localizer = Localizer(brightness, SPEC)
    with pytest.raises(UserError, match="on manipulated and authentic images"):
        calibrate_localizer(localizer, [s for s in sources if s.sample.label == 0])
    unlabelled = [source._replace(sample=replace(source.sample, label=None)) for source in sources]
    with pytest.raises(UserError, match="no image of the manifests has a label"):
        calibrate_localizer(localizer, unlabelled)
    with pytest.raises(UserError, match="--folds must be 2 or more"):
        calibrate_localizer(localizer, sources, folds=1)


@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_the_command_writes_a_copy_that_differs_in_the_spec_alone(
    ending: str, student: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = student.with_suffix(f".{ending}")
    before = given.read_bytes()
    words = [f"--checkpoint={given}", f"--manifest={manifest}"]
    assert main(["calibrate", *words]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"calibration error 0\.\d{4}, 0\.\d{4} \(0\.\d{4} by chance", printed)
    out = tmp_path / f"calibrated.{ending}"
    assert main(["calibrate", *words, f"--out={out}"]) == 0
    assert capsys.readouterr().out == f"{printed}{out}: written\n"
    assert given.read_bytes() == before
    old, new = Localizer.load(given), Localizer.load(out)
    assert new.spec.calibration is not None
    assert replace(new.spec, calibration=None) == old.spec
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    np.testing.assert_array_equal(old(image), new(image))
    assert out.stat().st_size < given.stat().st_size + 3000
    if ending == "ckpt":
        assert load_weights(out)["global_step"] == 7
    assert main(["export", f"--checkpoint={out}", f"--out={tmp_path / 'again.safetensors'}"]) == 0
    assert Localizer.load(tmp_path / "again.safetensors").spec == new.spec


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matching that finds a copy in the corner of every second bright image."""

    def add_copies(prob: ProbArray, image: ImageArray) -> ProbArray:
        if image.max() < 200 or image.sum() % 2:
            return prob
        fused = prob.copy()
        fused[:5, :5] = 0.9
        return fused

    monkeypatch.setattr("boxpromptiml.inference.localizer.add_copies", add_copies)


@pytest.mark.usefixtures("copies")
def test_copies_are_weighed_where_they_are_looked_for(sources: Sources) -> None:
    spec = replace(SPEC, copy_move=True)
    measured = measure(Localizer(brightness, spec), sources)
    assert measured.copied is not None
    assert 0 < measured.copied.sum() < len(sources)
    found = calibrate_localizer(Localizer(brightness, spec), sources).calibration
    expected = fit_platt(measured.logits, measured.manipulated, copied=measured.copied)
    assert found.copy_weight == pytest.approx(expected.copy_weight, abs=1e-2)
    plain = measure(Localizer(brightness, SPEC), sources)
    assert plain.copied is None
    assert calibration_report([plain, plain]).calibration.copy_weight is None
    with pytest.raises(ValueError, match="some folds were measured with copies"):
        calibration_report([plain, measured])


@pytest.mark.usefixtures("copies")
def test_the_copy_looks_for_copies_as_the_command_says(
    student: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def calibrated(given: Path, name: str, *words: str) -> ModelSpec:
        out = tmp_path / f"{name}.safetensors"
        command = ["calibrate", f"--checkpoint={given}", f"--manifest={manifest}", f"--out={out}"]
        assert main([*command, *words]) == 0
        return Localizer.load(out).spec

    on = calibrated(student, "on", "--copy_move=true")
    assert on.copy_move
    assert on.calibration is not None
    assert f"{on.calibration.copy_weight:+.4g} where regions match" in capsys.readouterr().out
    assert calibrated(tmp_path / "on.safetensors", "again") == on
    flips = calibrated(tmp_path / "on.safetensors", "flips", "--flips=true")
    assert (flips.copy_move, flips.flips) == (True, True)
    assert calibrated(tmp_path / "flips.safetensors", "none", "--flips=false") == on
    off = calibrated(tmp_path / "on.safetensors", "off", "--copy_move=false")
    assert off == calibrated(student, "plain")
    assert not off.copy_move
    words = [f"--checkpoint={tmp_path / 'on.safetensors'}", f"--out={tmp_path / 'e.safetensors'}"]
    assert main(["export", *words]) == 0
    assert Localizer.load(tmp_path / "e.safetensors").spec == on


def test_wrong_use_is_one_line(
    student: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--checkpoint={student}", f"--manifest={manifest}"]
    assert main(["calibrate", *words, f"--out={tmp_path / 'c.ckpt'}"]) == 1
    assert "its name must end in .safetensors" in capsys.readouterr().err
    other = tmp_path / "of_another_training.safetensors"
    shutil.copyfile(student, other)
    for out, said in ((student, "is what the job reads"), (other, "not of an earlier job")):
        before = out.read_bytes()
        assert main(["calibrate", *words, f"--out={out}"]) == 1
        assert said in capsys.readouterr().err
        assert out.read_bytes() == before
    words[0] = f"--checkpoint={tmp_path / 'student.onnx'}"
    assert main(["calibrate", *words]) == 1
    assert "calibrate the checkpoint it was made from" in capsys.readouterr().err
