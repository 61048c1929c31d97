"""The tests that start a run do so in another process, since wandb keeps its settings for one."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from boxpromptiml.manifests.manifest import read_manifest, write_manifest
from data_prep.__main__ import main
from tests.helpers.data import make_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = make_manifest(tmp_path, "train", 2, 1).path
    out = tmp_path / "pseudo"
    assert main(["pseudo-masks", "--manifest", str(path), "--out", str(out)]) == 0
    return out / "manifest.jsonl"


@pytest.mark.slow
def test_manifest_and_pseudo_masks_wait_for_sync(manifest: Path) -> None:
    words = ["wandb-artifact", "--manifest", str(manifest), "--name", "my-set"]
    done = subprocess.run(
        [sys.executable, "-m", "data_prep", *words],
        cwd=manifest.parent, env=os.environ | {"WANDB_MODE": "offline"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (log,) = manifest.parent.glob("wandb/offline-run-*/*.wandb")
    masks = [sample.pseudo_mask for sample in read_manifest(manifest).samples if sample.pseudo_mask]
    assert len(masks) == 2
    assert done.stdout.startswith("my-set: 5 files; ")
    for sent in ("my-set", "manifest.jsonl", *masks, *(m.replace(".png", ".json") for m in masks)):
        assert sent.encode() in log.read_bytes()


@pytest.mark.parametrize("fault", ["name", "missing", "elsewhere"])
def test_what_cannot_be_sent_is_one_line_and_starts_no_run(
    manifest: Path, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(manifest.parent)
    name = "a/b" if fault == "name" else "my-set"
    if fault == "missing":
        next(manifest.parent.rglob("masks/**/*.json")).unlink()
    if fault == "elsewhere":
        read = read_manifest(manifest)
        manifest = manifest.parent / "sub" / "manifest.jsonl"
        write_manifest(manifest, replace(read.header, pseudo_root=".."), read.samples)
    capsys.readouterr()
    assert main(["wandb-artifact", "--manifest", str(manifest), "--name", name]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert {"name": "--name a/b: ", "missing": "is missing", "elsewhere": "lies outside"}[
        fault
    ] in line
    assert not Path("wandb").exists()
