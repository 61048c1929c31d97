"""Files of earlier versions are read; those of later ones are refused by name."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from boxpromptiml import Localizer
from boxpromptiml.cli import main as train
from boxpromptiml.errors import UserError
from boxpromptiml.evaluation.runs import Run
from boxpromptiml.io import images, old_names
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.manifests.sidecars import expected_fingerprint, mask_sha256, read_sidecar
from boxpromptiml.metrics.results import read_evaluation
from boxpromptiml.records import Box
from data_prep.__main__ import main

V1 = Path(__file__).parent / "v1"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(V1, tmp_path / "v1"))


def test_manifest() -> None:
    manifest = read_manifest(V1 / "manifest.jsonl")
    forged, plain = manifest.samples
    assert (forged.id, forged.label, forged.size) == ("made/a", 1, (40, 56))
    assert forged.boxes == (Box(8, 6, 44, 34.5),)
    assert (forged.kind, forged.mask_threshold, forged.box_origin) == ("splice", 127, "human")
    assert (plain.label, plain.boxes, plain.mask) == (0, (), None)
    path = manifest.mask_path(forged)
    assert path is not None
    assert images.read_mask(path, 127).sum() == 20 * 28
    assert images.probe(manifest.image_path(forged)).sha256 == forged.image_sha256


def test_pseudo_mask_and_sidecar() -> None:
    manifest = read_manifest(V1 / "pseudo" / "manifest.jsonl")
    sample = manifest.samples[0]
    path = manifest.pseudo_mask_path(sample)
    assert path is not None
    sidecar = read_sidecar(path)
    assert sidecar.mask_sha256 == mask_sha256(path)
    signature = manifest.header.teacher_signature
    assert signature is not None
    assert sample.image_sha256 is not None
    assert sidecar.signature == expected_fingerprint(sample, sample.image_sha256, signature)
    assert (images.read_trimap(path) == 255).sum() > 300


def test_check_finds_nothing_wrong(tmp_path: Path) -> None:
    words = ["--manifest", str(V1 / "pseudo" / "manifest.jsonl"), "--verify"]
    assert main(["check", *words, "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize("name", ["student.ckpt", "student.safetensors"])
def test_checkpoint(name: str) -> None:
    assert (V1 / name).stat().st_size < 300_000
    prob = Localizer.load(V1 / name)(V1 / "a.png")
    expected = np.array(json.loads((V1 / "prob.json").read_text()))
    np.testing.assert_allclose(prob[::8, ::8], expected, atol=1e-3)
    assert np.ptp(expected) > 0.01


def test_evaluation() -> None:
    found = read_evaluation(V1 / "evaluation")
    assert found.metrics["scores"]["pixel_f1"]["value"] == 0.5
    assert [row.id for row in found.rows] == ["made/a", "=made/b"]
    assert found.rows[0].f1 == 0.5
    assert math.isnan(found.rows[1].f1)


def newer(path: Path) -> None:
    """Put another schema version into a JSON file."""
    text = path.read_text()
    changed = text.replace('"schema_version": 1', '"schema_version": 2', 1)
    assert changed != text
    path.write_text(changed)


def test_newer_manifests_are_refused(copy: Path) -> None:
    newer(copy / "manifest.jsonl")
    with pytest.raises(UserError, match=r"manifest schema 2, this version reads 1; update"):
        read_manifest(copy / "manifest.jsonl")


def test_newer_sidecars_are_refused(copy: Path) -> None:
    newer(copy / "pseudo" / "masks" / "made" / "a.json")
    with pytest.raises(UserError, match=r"sidecar schema 2, not 1"):
        read_sidecar(copy / "pseudo" / "masks" / "made" / "a.png")


def test_newer_evaluations_are_refused(copy: Path) -> None:
    newer(copy / "evaluation" / "metrics.json")
    with pytest.raises(UserError, match=r"schema 2, this version reads 1"):
        read_evaluation(copy / "evaluation")


def test_newer_checkpoints_are_refused(copy: Path) -> None:
    checkpoint = torch.load(copy / "student.ckpt", weights_only=True)  # noqa: TID251
    checkpoint["boxpromptiml"]["schema_version"] = 2
    torch.save(checkpoint, copy / "newer.ckpt")
    with pytest.raises(UserError, match=r"checkpoint schema 2, this version reads 1; update"):
        Localizer.load(copy / "newer.ckpt")


def test_the_folder_of_a_run_is_opened_with_names_of_today() -> None:
    data = Run.open(V1).config["data"]
    assert (data["train_fraction"], data["input"]["mode"]) == (0.5, "resize")
    assert data["segmenter"]["min_fraction"] == 0.0005


@pytest.mark.parametrize("name", ["config.yaml", "config_image_label.yaml"])
def test_the_configuration_of_a_run_trains_again(
    name: str, data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With keys and classes under the names that they had."""
    old_names._say.cache_clear()
    manifests = [f"--data.{split}=[{data_root}/{split}.jsonl]" for split in ("train", "val")]
    words = [*manifests, "--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path}"]
    with caplog.at_level("WARNING", "boxpromptiml.io.old_names"):
        assert train(["fit", "--config", str(V1 / name), *words]) == 0
    said = [record.getMessage() for record in caplog.records]
    assert "train_share is an older name; write train_fraction" in said
    assert "fit is an older name; write mode" in said
