"""A validation set that cannot choose a checkpoint is refused before training."""

from dataclasses import replace
from pathlib import Path

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.manifests.manifest import read_manifest, write_manifest
from boxpromptiml.manifests.sources import Source
from boxpromptiml.tasks.monitor import refuse_uncomputable
from tests.helpers.fit import fit
from tests.helpers.training import copy_of


@pytest.fixture
def sources(data_root: Path) -> list[Source]:
    manifest = read_manifest(data_root / "val.jsonl")
    return [Source(manifest, sample) for sample in manifest.samples]


def test_authentic_images_alone_choose_by_false_alarms(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copy_of(data_root, tmp_path)
    manifest = read_manifest(root / "val.jsonl")
    authentic = [sample for sample in manifest.samples if sample.label == 0]
    write_manifest(root / "val.jsonl", manifest.header, authentic)
    run = tmp_path / "run"
    assert fit(root, run, "--trainer.max_epochs=1") == 1
    said = capsys.readouterr().err
    assert "2 validation images (0 manipulated with a mask, 2 authentic)" in said
    advice = ["--checkpoint.monitor=val/false_alarm_pixels", "--checkpoint.mode=min"]
    assert " ".join(advice) in said
    assert not (run / "config.yaml").exists()
    assert fit(root, run, "--trainer.max_epochs=1", *advice) == 0
    assert (run / "checkpoints" / "best.ckpt").is_file()


def test_labels_alone_choose_by_the_image_score(sources: list[Source]) -> None:
    labelled = [s._replace(sample=replace(s.sample, mask=None)) for s in sources]
    with pytest.raises(UserError, match=r"monitor=val/image_auc$"):
        refuse_uncomputable("val/pixel_f1", labelled)
    refuse_uncomputable("val/image_f1", labelled)


def test_images_without_labels_and_masks_choose_nothing(sources: list[Source]) -> None:
    unknown = [s._replace(sample=replace(s.sample, mask=None, label=None)) for s in sources]
    with pytest.raises(UserError, match="no score can be computed"):
        refuse_uncomputable("val/pixel_f1", unknown)


@pytest.mark.parametrize("monitor", ["val/pixel_f2", "pixel_f1", "test/pixel_f1"])
def test_a_misspelt_score_is_refused(sources: list[Source], monitor: str) -> None:
    with pytest.raises(UserError, match=r"no such score; there are .*val/pixel_f1"):
        refuse_uncomputable(monitor, sources, others=False)


@pytest.mark.parametrize("monitor", ["val/pixel_f1", "val/coarse_auc", "val/best_f1", "my/own"])
def test_other_scores_are_accepted(sources: list[Source], monitor: str) -> None:
    refuse_uncomputable(monitor, sources)
