import errno
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from boxpromptiml import geometry
from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Manifest, read_manifest, safe_name, write_manifest
from boxpromptiml.manifests.sidecars import read_sidecar
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Box, BoxArray, ImageArray, Proposal
from boxpromptiml.teachers.audit import sure_counts
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.grabcut import GrabCutTeacher
from boxpromptiml.teachers.pseudo_masks import mask_name, run_job
from boxpromptiml.teachers.shards import Shard
from data_prep.__main__ import main
from tests.helpers.commands import Command


@dataclass(frozen=True)
class FilledBox:
    """A teacher that answers a box with the box; `weights` stands for its weights."""

    weights: str = "0"
    score: float = 1.0

    @property
    def settings(self) -> dict[str, Any]:
        return {"name": "filled", "weights_sha256": self.weights, "settings": {}}

    def propose(self, image: ImageArray, boxes: BoxArray) -> list[Proposal]:
        size = image.shape[:2]
        return [
            Proposal(geometry.union_mask(box[None], size), self.score, Box(*map(float, box)))
            for box in boxes
        ]


class Forbidden(FilledBox):
    """Fails when asked: nothing should be redone."""

    def propose(self, image: ImageArray, boxes: BoxArray) -> list[Proposal]:
        raise AssertionError("asked again")


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "summary.json"
    }


@pytest.fixture
def train(data_root: Path) -> Manifest:
    return read_manifest(data_root / "train.jsonl")


def test_a_photograph_that_changed_in_place_keeps_no_old_mask(
    train: Manifest, tmp_path: Path
) -> None:
    run_job(train, tmp_path, FilledBox(), Consensus())
    sample = next(one for one in train.samples if one.boxes)
    path = train.image_path(sample)
    whole = path.read_bytes()
    try:
        path.write_bytes(whole)  # newer, but the same
        assert run_job(train, tmp_path, Forbidden(), Consensus())["made"] == 0
        images.write_jpeg(path, np.zeros((*sample.size, 3), np.uint8), 90)
        assert run_job(train, tmp_path, FilledBox(), Consensus())["status"]["rejected"] == 1
    finally:
        path.write_bytes(whole)


def test_what_comes_out(train: Manifest, tmp_path: Path) -> None:
    summary = run_job(train, tmp_path, FilledBox(), Consensus())
    assert summary["status"] == {"authentic": 3, "ok": 6}
    assert summary["made"] == 6
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    written = read_manifest(tmp_path / "manifest.jsonl")
    assert [s.id for s in written.samples] == [s.id for s in train.samples]
    for sample in written.samples:
        assert written.image_path(sample).is_file()
        path = written.pseudo_mask_path(sample)
        assert (path is None) == (sample.label == 0)
        if path:
            inside = geometry.union_mask(geometry.as_array(sample.boxes or ()), sample.size)
            np.testing.assert_array_equal(images.read_trimap(path) == 255, inside)
            assert read_sidecar(path).boxes == sample.boxes
    data = LocalizationData(
        train=[written.path],
        val=[train.path.parent / "val.jsonl"],
        input=NetworkInput("native", (64, 64)),
        teacher_signature=summary["teacher_signature"],
    )
    data.setup("fit")


def test_a_second_run_redoes_nothing(train: Manifest, tmp_path: Path) -> None:
    run_job(train, tmp_path, FilledBox(), Consensus())
    before = content(tmp_path)
    summary = run_job(train, tmp_path, Forbidden(), Consensus())
    assert summary["made"] == 0
    assert content(tmp_path) == before


def test_only_what_is_missing_damaged_or_stale_is_redone(train: Manifest, tmp_path: Path) -> None:
    run_job(train, tmp_path, FilledBox(), Consensus())
    before = content(tmp_path)
    masks = sorted((tmp_path / "masks").rglob("*.png"))
    masks[0].unlink()
    masks[1].with_suffix(".json").unlink()
    masks[2].write_bytes(masks[2].read_bytes()[:-5])
    masks[3].with_suffix(".json").write_text("{}")
    assert run_job(train, tmp_path, FilledBox(), Consensus())["made"] == 4
    assert content(tmp_path) == before
    first = train.samples[0]
    moved = replace(first, boxes=(Box(1, 1, 30, 30),))
    changed = write_manifest(
        train.path.parent / "moved.jsonl", train.header, [moved, *train.samples[1:]]
    )
    assert run_job(changed, tmp_path, FilledBox(), Consensus())["made"] == 1


@pytest.mark.parametrize(
    ("teacher", "consensus"),
    [(FilledBox(weights="1"), Consensus()), (FilledBox(), Consensus(copies=3))],
)
def test_other_weights_or_settings_redo_everything(
    train: Manifest, tmp_path: Path, teacher: FilledBox, consensus: Consensus
) -> None:
    run_job(train, tmp_path, FilledBox(), Consensus())
    old = read_manifest(tmp_path / "manifest.jsonl")
    assert run_job(train, tmp_path, teacher, consensus)["made"] == 6
    write_manifest(tmp_path / "old.jsonl", old.header, old.samples)
    data = LocalizationData(
        train=[tmp_path / "old.jsonl"],
        val=[train.path.parent / "val.jsonl"],
        input=NetworkInput("native", (64, 64)),
    )
    with pytest.raises(UserError, match="stale"):
        data.setup("fit")


def test_workers_do_not_change_a_byte(train: Manifest, tmp_path: Path) -> None:
    for workers in (0, 1, 2):
        run_job(train, tmp_path / str(workers), GrabCutTeacher(), Consensus(copies=2), workers)
    alone = content(tmp_path / "0")
    assert content(tmp_path / "1") == alone
    assert content(tmp_path / "2") == alone


def test_rejected_images_are_listed_once_and_leave_the_manifest(
    data_root: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(data_root, tmp_path / "data"))
    manifest = read_manifest(root / "train.jsonl")
    bad = [manifest.image_path(s) for s in manifest.samples[:3]]
    bad[0].write_bytes(bad[0].read_bytes()[:-30])
    bad[1].unlink()
    bad[2].write_bytes(b"")
    status = main(["pseudo-masks", f"--manifest={manifest.path}", f"--out={tmp_path}/out"])
    assert status == 3
    rows = [json.loads(x) for x in (tmp_path / "out/errors.jsonl").read_text().splitlines()]
    assert [Path(row["path"]).name for row in rows] == [path.name for path in bad]
    assert [row["reason"] for row in rows] == ["truncated_or_corrupt", "missing", "empty"]
    written = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert len(written.samples) + len(rows) == len(manifest.samples)


def test_unannotated_images_stay_without_a_pseudo_mask(train: Manifest, tmp_path: Path) -> None:
    samples = [replace(train.samples[0], boxes=None), *train.samples[1:]]
    changed = write_manifest(train.path.parent / "unannotated.jsonl", train.header, samples)
    summary = run_job(changed, tmp_path, FilledBox(), Consensus())
    assert summary["status"]["no_boxes"] == 1
    assert read_manifest(tmp_path / "manifest.jsonl").samples[0].pseudo_mask is None


def test_audit_agrees_with_scikit_learn(train: Manifest, tmp_path: Path) -> None:
    audit = run_job(train, tmp_path, FilledBox(), Consensus())["audit"]
    written = read_manifest(tmp_path / "manifest.jsonl")
    f1s, ious = {}, {}
    for sample in written.samples:
        if sample.pseudo_mask:
            paths = written.mask_path(sample), written.pseudo_mask_path(sample)
            assert paths[0] is not None
            assert paths[1] is not None
            truth = images.read_mask(paths[0]).ravel()
            mask = (images.read_trimap(paths[1]) == 255).ravel()
            f1s[sample.id], ious[sample.id] = f1_score(truth, mask), jaccard_score(truth, mask)
    assert audit["images"] == 6
    assert audit["f1"] == pytest.approx(np.mean(list(f1s.values())), abs=1e-9)
    assert audit["iou"] == pytest.approx(np.mean(list(ious.values())), abs=1e-9)
    assert audit["worst"][0]["id"] == min(ious, key=ious.__getitem__)


def test_low_scores_are_unsure_and_unsure_pixels_leave_the_audit(
    train: Manifest, tmp_path: Path
) -> None:
    summary = run_job(train, tmp_path, FilledBox(score=0.3), Consensus(min_score=0.5))
    assert summary["status"] == {"authentic": 3, "unsure": 6}
    assert summary["audit"]["unsure"] > 0.05
    levels = np.array([[0, 127, 255, 255]], np.uint8)
    truth = np.array([[True, True, True, False]])
    assert sure_counts(levels, truth) == (1, 1, 1, 0)


def test_two_jobs_do_not_write_into_one_folder(train: Manifest, tmp_path: Path) -> None:
    class Impatient(FilledBox):
        def propose(self, image: ImageArray, boxes: BoxArray) -> list[Proposal]:
            with pytest.raises(UserError, match="another"):
                run_job(train, tmp_path, FilledBox(), Consensus())
            return super().propose(image, boxes)

    assert run_job(train, tmp_path, Impatient(), Consensus())["made"] == 6


def test_a_path_out_of_the_root_and_an_odd_mask_cost_one_image_each(
    data_root: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(data_root, tmp_path / "data"))
    manifest = read_manifest(root / "train.jsonl")
    linked = manifest.image_path(manifest.samples[0])
    linked.rename(tmp_path / "elsewhere.jpg")
    linked.symlink_to(tmp_path / "elsewhere.jpg")
    odd_mask = manifest.mask_path(manifest.samples[1])
    assert odd_mask is not None
    images.write_png(odd_mask, np.zeros((9, 9), np.uint8))
    summary = run_job(manifest, tmp_path / "out", FilledBox(), Consensus())
    assert summary["status"] == {"authentic": 3, "ok": 5, "rejected": 1}
    assert summary["audit"]["images"] == 4
    assert "bad_path" in (tmp_path / "out" / "errors.jsonl").read_text()


def test_ids_become_sound_paths() -> None:
    assert safe_name("d/tampered/a 1") == "d/tampered/a 1"
    hostile = ["../x", "/x", "a/../b", "a\\b", "c:x", "a\0b", "", "a//b", "x" * 300, "\udcff"]
    names = [safe_name(name) for name in hostile]
    assert len(set(names)) == len(names)
    assert all("/" not in name and ".." not in name for name in names)


@dataclass(frozen=True)
class Fatal(FilledBox):
    """A teacher that kills the process that asks it, or fills its disk."""

    number: int = 0  # of the error; 0 kills

    def propose(self, image: ImageArray, boxes: BoxArray) -> list[Proposal]:
        if self.number:
            raise OSError(self.number, os.strerror(self.number), "/full/disk")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed")


def test_a_killed_worker_is_said_and_the_job_goes_on_later(train: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"worker was killed.*fewer --num_workers"):
        run_job(train, tmp_path, Fatal(), Consensus(), num_workers=1)
    assert run_job(train, tmp_path, FilledBox(), Consensus())["made"] == 6


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_stops_the_job_by_its_own_error(
    train: Manifest, tmp_path: Path, workers: int
) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        run_job(train, tmp_path, Fatal(number=errno.ENOSPC), Consensus(), workers)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == "/full/disk"
    assert not (tmp_path / "manifest.jsonl").exists()


def test_what_a_killed_run_left_behind_is_removed(train: Manifest, tmp_path: Path) -> None:
    left = tmp_path / "masks" / "made" / f".{'0' * 16}.123.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    (tmp_path / ".made_by_pseudo-masks").touch()
    run_job(train, tmp_path, FilledBox(), Consensus())
    assert not left.exists()


def interruptible() -> None:
    """In the new process: SIGINT, which is ignored in the background, interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.slow
def test_interrupted_leaves_nothing_half_written(data_root: Path, tmp_path: Path) -> None:
    """Ctrl-C at a random point, then a resume: the same bytes as an undisturbed run."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    words = [f"--manifest={data_root}/train.jsonl", "--copies=40", f"--out={out}"]
    process = Command(["data_prep", "pseudo-masks", "--num_workers=1", *words], interruptible)
    deadline = time.monotonic() + 120
    while not list(out.rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.signal(signal.SIGINT)
    ended = process.wait(120)
    assert ended.status in (0, 130)
    assert "Traceback" not in ended.said
    assert not list(out.rglob("*.tmp"))
    manifest = read_manifest(data_root / "train.jsonl")
    run_job(manifest, out, GrabCutTeacher(), Consensus(copies=40))
    run_job(manifest, whole, GrabCutTeacher(), Consensus(copies=40))
    assert content(out) == content(whole)


def test_masks_and_manifests_of_somebody_else_are_not_replaced(
    train: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(b"drawn by hand")
    with pytest.raises(UserError, match="masks: is there, and not made by"):
        run_job(train, tmp_path, FilledBox(), Consensus())
    own = replace(train, path=tmp_path / "new" / "manifest.jsonl")
    with pytest.raises(UserError, match="would be replaced"):
        run_job(own, tmp_path / "new", FilledBox(), Consensus())


def test_a_dataset_keeps_its_manifest_and_ground_truth(train: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "forged"
    (out / "masks").mkdir(parents=True)
    (out / ".lock").touch()  # of another kind of job
    header = replace(train.header, image_root=".")
    truth = [replace(s, mask=mask_name(s)) for s in train.samples]
    boxed = write_manifest(out / "boxed.jsonl", header, truth)
    derived = replace(header, teacher_signature="0", pseudo_root="../pseudo")
    for other in (None, header, derived):
        if other:
            write_manifest(out / "manifest.jsonl", other, [])
        with pytest.raises(UserError, match="masks: is there, and not made by"):
            run_job(boxed, out, FilledBox(), Consensus())
    assert not [*(out / "masks").iterdir()]


def test_an_image_of_countless_boxes_is_rejected(train: Manifest, tmp_path: Path) -> None:
    boxed = next(at for at, sample in enumerate(train.samples) if sample.boxes)
    rows = list(train.samples)
    rows[boxed] = replace(rows[boxed], boxes=(Box(0, 0, 5, 5),) * 1001)
    many = write_manifest(
        tmp_path / "many.jsonl",
        replace(
            train.header, image_root=str((train.path.parent / train.header.image_root).resolve())
        ),
        rows,
    )
    summary = run_job(many, tmp_path / "out", FilledBox(), Consensus())
    assert summary["status"]["rejected"] == 1
    (line,) = (tmp_path / "out" / "errors.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "too_many_boxes"


def test_masks_of_shards_are_known_without_hidden_files(train: Manifest, tmp_path: Path) -> None:
    run_job(train, tmp_path, FilledBox(), Consensus(), shard=Shard(0, 1))
    for path in tmp_path.glob(".*"):
        path.unlink()
    assert run_job(train, tmp_path, FilledBox(), Consensus())["made"] == 0


def test_copied_masks_are_not_made_again(train: Manifest, tmp_path: Path) -> None:
    """Without the lock and the summary, as an artifact of W&B holds them."""
    out = tmp_path / "downloaded"
    run_job(train, out, FilledBox(), Consensus())
    (out / ".lock").unlink()
    (out / "summary.json").unlink()
    assert run_job(train, out, FilledBox(), Consensus())["made"] == 0
