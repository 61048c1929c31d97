import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Trainer, seed_everything

from boxpromptiml import Localizer, geometry
from boxpromptiml.errors import UserError
from boxpromptiml.inference.localizer import Localized
from boxpromptiml.io import images
from boxpromptiml.io.files import sha256_file
from boxpromptiml.manifests.manifest import Manifest, read_manifest, write_manifest
from boxpromptiml.models.configs import FusionConfig, StudentConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.segmenters.config import SegmenterConfig
from boxpromptiml.tasks.distill import DistillTask
from data_prep.__main__ import main
from data_prep.cam_boxes import MapBoxes, boxes_from_map
from tests.helpers.approx import approx
from tests.helpers.data import make_manifest, mask_file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `fit` writes it, of random weights."""
    seed_everything(0, verbose=False)
    config = StudentConfig(
        backbone="mobilenetv3_small_050", fusion=FusionConfig(width=16, prototypes=8)
    )
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(DistillTask(config, NetworkInput("native", (64, 64))))
    path = tmp_path_factory.mktemp("network") / "network.ckpt"
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def partly(tmp_path: Path) -> Manifest:
    """Six manipulated images, of which the last three have no boxes; three authentic ones."""
    manifest = make_manifest(tmp_path / "data", "train", 6, 3, seed=1)
    samples = [
        replace(sample, boxes=None) if number in (3, 4, 5) else sample
        for number, sample in enumerate(manifest.samples)
    ]
    return write_manifest(manifest.path, manifest.header, samples)


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A network that finds what is bright; returns the shapes of its batches."""
    batches = []

    def localize(self: Any, batch: Any, tile: bool = False) -> list[Localized]:
        batches.append([image.shape[:2] for image in batch])
        maps = [(image.max(axis=2) > 120).astype(np.float32) * 0.8 for image in batch]
        return [Localized(prob, float(prob.max())) for prob in maps]

    monkeypatch.setattr(Localizer, "localize", localize)
    return batches


def run(manifest: Manifest, checkpoint: Path, out: Path, *more: str) -> int:
    files = [f"--manifest={manifest.path}", f"--checkpoint={checkpoint}", f"--out={out}"]
    return main(["cam-boxes", *files, *more])


def test_only_what_has_no_boxes_gets_those_of_the_network(
    partly: Manifest, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "elsewhere" / "cam.jsonl"
    assert run(partly, checkpoint, out) == 0
    written = read_manifest(out)
    localizer = Localizer.load(checkpoint)
    assert len(written.samples) == 9
    for before, after in zip(partly.samples, written.samples, strict=True):
        assert written.image_path(after).is_file()
        if before.label == 0 or before.boxes:
            assert after == before
            continue
        prob = localizer(partly.image_path(before))
        expected = tuple(one.box for one in boxes_from_map(prob / prob.max(), MapBoxes()))
        assert after == replace(before, boxes=expected, box_origin="cam")
    notes = written.header.notes["cam_boxes"]
    assert notes["checkpoint_sha256"] == sha256_file(checkpoint)
    assert notes["boxes"] == MapBoxes().settings
    assert written.header.notes["dataset"] == "folder"
    assert not list(out.parent.glob("*errors*"))


def test_the_boxes_are_around_what_the_map_shows(
    partly: Manifest, checkpoint: Path, bright: list[Any], tmp_path: Path
) -> None:
    options = ["--boxes.min_area=0.01", "--boxes.merge=0.05", "--boxes.most=1"]
    assert run(partly, checkpoint, tmp_path / "cam.jsonl", *options) == 0
    written = read_manifest(tmp_path / "cam.jsonl")
    assert written.header.notes["cam_boxes"]["boxes"]["settings"]["merge"] == 0.05
    found = [sample for sample in written.samples if sample.box_origin == "cam"]
    assert len(found) == 3
    for sample in found:
        truth = geometry.from_mask(images.read_mask(mask_file(written, sample)))
        assert sample.boxes == (approx(truth, abs=2),)
    status = main(["pseudo-masks", f"--manifest={tmp_path}/cam.jsonl", f"--out={tmp_path}/pseudo"])
    assert status == 0
    summary = json.loads((tmp_path / "pseudo" / "summary.json").read_text())
    assert summary["made"] == 6
    made = read_manifest(tmp_path / "pseudo" / "manifest.jsonl").samples
    assert [s.box_origin for s in made] == [None] * 3 + ["cam"] * 3 + [None] * 3


def test_the_maps_may_be_refined_by_regions(
    partly: Manifest, checkpoint: Path, tmp_path: Path
) -> None:
    plain, refined = tmp_path / "plain.jsonl", tmp_path / "refined.jsonl"
    assert run(partly, checkpoint, plain) == 0
    assert run(partly, checkpoint, refined, "--segmenter.name=slic") == 0
    notes = [
        read_manifest(path).header.notes["cam_boxes"]["segmenter"] for path in (plain, refined)
    ]
    assert notes[0] is None
    assert notes[1]["name"] == "slic"
    regions = Localizer.load(checkpoint, segmenter=SegmenterConfig("slic"))
    for sample in read_manifest(refined).samples[3:6]:
        prob = regions(partly.image_path(sample))
        assert sample.boxes == tuple(
            one.box for one in boxes_from_map(prob / prob.max(), MapBoxes())
        )


def test_no_mask_and_no_other_image_is_opened(
    partly: Manifest, checkpoint: Path, tmp_path: Path
) -> None:
    whole, alone = tmp_path / "whole.jsonl", tmp_path / "alone.jsonl"
    assert run(partly, checkpoint, whole) == 0
    shutil.rmtree(tmp_path / "data" / "train" / "masks")
    for sample in partly.samples:
        if sample.label == 0 or sample.boxes:
            partly.image_path(sample).unlink()
    assert run(partly, checkpoint, alone) == 0
    assert whole.read_bytes() == alone.read_bytes()


def test_what_a_label_or_a_person_leaves_open_stays_open(
    partly: Manifest, checkpoint: Path, bright: list[Any], tmp_path: Path
) -> None:
    first, second, *others = partly.samples
    unknown = replace(first, label=None, boxes=None)
    seen_by_a_person = replace(second, boxes=(), box_origin="human")
    changed = write_manifest(partly.path, partly.header, [unknown, seen_by_a_person, *others])
    assert run(changed, checkpoint, tmp_path / "cam.jsonl") == 0
    assert read_manifest(tmp_path / "cam.jsonl").samples[:2] == (unknown, seen_by_a_person)


def test_old_boxes_go_with_their_pseudo_mask(
    partly: Manifest, checkpoint: Path, bright: list[Any], tmp_path: Path
) -> None:
    samples = [
        replace(sample, pseudo_mask=f"m{number}.png", box_origin="human" if sample.boxes else None)
        for number, sample in enumerate(partly.samples)
    ]
    changed = write_manifest(partly.path, partly.header, samples)
    assert run(changed, checkpoint, tmp_path / "cam.jsonl", "--box_fraction=0") == 0
    after = read_manifest(tmp_path / "cam.jsonl").samples
    assert [s.box_origin for s in after] == ["cam"] * 6 + [None] * 3
    assert [s.pseudo_mask for s in after] == [None] * 6 + ["m6.png", "m7.png", "m8.png"]
    assert sum(map(len, bright)) == 6


def test_where_the_network_sees_nothing_there_is_no_box(
    partly: Manifest,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def nothing(self: Any, batch: Any, tile: bool = False) -> list[Localized]:
        return [Localized(np.full(image.shape[:2], 0.01, np.float32), 0.01) for image in batch]

    monkeypatch.setattr(Localizer, "localize", nothing)
    assert run(partly, checkpoint, tmp_path / "cam.jsonl", "--box_fraction=0") == 0
    after = read_manifest(tmp_path / "cam.jsonl").samples
    assert all(s.boxes is None and s.box_origin is None for s in after if s.label)
    assert "6 in which it sees nothing" in capsys.readouterr().out


def kept(manifest: Manifest, checkpoint: Path, out: Path, share: float, seed: int = 0) -> set[str]:
    options = [f"--box_fraction={share}", f"--seed={seed}"]
    assert run(manifest, checkpoint, out, *options) == 0
    samples = read_manifest(out).samples
    assert all(s.box_origin == "cam" or not s.label or s.boxes for s in samples)
    return {s.id for s in samples if s.label and s.box_origin is None}


def test_a_share_keeps_its_boxes_and_contains_every_smaller_share(
    checkpoint: Path, bright: list[Any], tmp_path: Path
) -> None:
    manifest = make_manifest(tmp_path / "data", "train", 20, 2, seed=1)
    out = tmp_path / "cam.jsonl"
    shares = [0.0, 0.1, 0.3, 0.5, 1.0]
    subsets = [kept(manifest, checkpoint, out, share) for share in shares]
    assert [len(subset) for subset in subsets] == [0, 2, 6, 10, 20]
    assert all(a < b for a, b in pairwise(subsets))
    assert kept(manifest, checkpoint, out, 0.3, seed=1) != subsets[2]
    before = {s.id: s for s in manifest.samples}
    assert kept(manifest, checkpoint, out, 0.3) == subsets[2]
    assert all(before[s.id] == s for s in read_manifest(out).samples if s.id in subsets[2])
    turned = write_manifest(
        tmp_path / "data" / "turned.jsonl", manifest.header, manifest.samples[::-1]
    )
    assert kept(turned, checkpoint, out, 0.3) == subsets[2]


def test_images_that_cannot_be_used_are_listed_once_and_leave_the_manifest(
    partly: Manifest, checkpoint: Path, tmp_path: Path
) -> None:
    paths = [partly.image_path(sample) for sample in partly.samples[:6]]
    paths[0].write_bytes(b"")  # has boxes: not opened
    paths[3].write_bytes(paths[3].read_bytes()[:-200])
    paths[4].rename(tmp_path / "elsewhere.jpg")
    paths[4].symlink_to(tmp_path / "elsewhere.jpg")
    images.write_jpeg(paths[5], np.zeros((64, 97, 3), np.uint8), 90)
    out = tmp_path / "cam.jsonl"
    assert run(partly, checkpoint, out) == 3
    rows = [json.loads(x) for x in (tmp_path / "cam.errors.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in rows] == ["truncated_or_corrupt", "bad_path", "size_mismatch"]
    assert [s.id for s in read_manifest(out).samples] == [
        s.id for number, s in enumerate(partly.samples) if number not in (3, 4, 5)
    ]
    images.write_jpeg(paths[5], np.zeros((64, 96, 3), np.uint8), 90)  # not what was imported
    assert run(partly, checkpoint, out) == 3
    assert '"changed"' in (tmp_path / "cam.errors.jsonl").read_text()


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_images_of_one_size_go_together_and_batches_do_not_change_the_result(
    checkpoint: Path, bright: list[Any], tmp_path: Path, batch_size: int
) -> None:
    manifest = make_manifest(tmp_path / "data", "train", 6, 0, seed=1)
    samples = []
    for number, sample in enumerate(manifest.samples):
        if number % 2:
            path = manifest.image_path(sample)
            images.write_jpeg(path, images.read_image(path)[0][:40], 95)
            sample = replace(sample, size=(40, 96), boxes=None, image_sha256=None)  # noqa: PLW2901
        samples.append(sample)
    changed = write_manifest(manifest.path, manifest.header, samples)
    out = tmp_path / "cam.jsonl"
    options = ["--box_fraction=0", f"--batch_size={batch_size}"]
    assert run(changed, checkpoint, out, *options) == 0
    assert [shape for batch in bright for shape in batch] == [(40, 96)] * 3 + [(64, 96)] * 3
    assert max(map(len, bright)) == min(batch_size, 6)
    for sample in read_manifest(out).samples:
        image = images.read_image(changed.image_path(sample))[0]
        prob = (image.max(axis=2) > 120).astype(np.float32) * np.float32(0.8)
        assert sample.boxes == tuple(
            one.box for one in boxes_from_map(prob / prob.max(), MapBoxes())
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--box_fraction=1.5"], "box_fraction"),
        (["--box_fraction=nan"], "box_fraction"),
        (["--boxes.threshold=2"], "threshold"),
        (["--boxes.nonsense=2"], "nonsense"),
        (["--checkpoint=none.ckpt"], "none.ckpt"),
        (["--manifest=none.jsonl"], "none.jsonl"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    partly: Manifest,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert run(partly, checkpoint, tmp_path / "cam.jsonl", *options) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "cam.jsonl").exists()


def test_an_origin_is_checked_when_a_manifest_is_read(partly: Manifest) -> None:
    first = partly.samples[0]
    for origin in ("human", "cam", "mask", None):
        written = write_manifest(partly.path, partly.header, [replace(first, box_origin=origin)])
        assert read_manifest(partly.path) == written
    with pytest.raises(UserError, match="without boxes"):
        write_manifest(partly.path, partly.header, [replace(first, boxes=None, box_origin="cam")])
    text = partly.path.read_text()
    assert "box_origin" not in text  # the last one has none: as an older version writes it
    row = json.loads(text.splitlines()[1]) | {"box_origin": "me"}
    partly.path.write_text(text.splitlines()[0] + "\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"train\.jsonl:2: box_origin"):
        read_manifest(partly.path)
