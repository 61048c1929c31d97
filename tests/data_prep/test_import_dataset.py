"""Public datasets in miniature, imported.

`python -m tests.data_prep.test_import_dataset` writes golden/ anew; look at the difference.
"""

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest
from data_prep.import_dataset import import_dataset
from data_prep.importers.datasets import PUBLIC
from tests.helpers.data import make_folder, mask_file
from tests.helpers.imports import GOLDEN, errors, golden_text, imported, run
from tests.helpers.trees import TREES, photo


@pytest.mark.parametrize("dataset", TREES)
def test_the_manifest_is_the_golden_one(dataset: str, tmp_path: Path) -> None:
    assert golden_text(tmp_path, dataset) == (GOLDEN / f"{dataset}.jsonl").read_text()


@pytest.mark.parametrize("dataset", TREES)
def test_every_mask_lies_on_its_own_image(dataset: str, tmp_path: Path) -> None:
    """Wrong pairs, wrong polarity and wrong thresholds all show here."""
    manifest, _ = imported(tmp_path, dataset)
    seen = 0
    for sample in manifest.samples:
        pixels, info = images.read_image(manifest.image_path(sample))
        assert info.sha256 == sample.image_sha256
        assert (sample.boxes == ()) == (sample.label == 0)
        bright = pixels[..., 0] > 130
        assert bright.any() == bool(sample.label)
        if sample.mask is None:
            assert sample.label == 0
            continue
        truth = images.read_mask(mask_file(manifest, sample), sample.mask_threshold)
        assert (truth != bright).sum() <= 4
        seen += 1
    assert seen == sum(sample.label == 1 for sample in manifest.samples) > 1


@pytest.mark.parametrize("dataset", TREES)
def test_verify_finds_nothing_more_in_sound_data(dataset: str, tmp_path: Path) -> None:
    manifest, rejected = imported(tmp_path, dataset)
    verified, again = imported(tmp_path, dataset, "--verify", "true")
    assert (verified.samples, again) == (manifest.samples, rejected)
    assert verified.header.notes["verified"] is True


@pytest.mark.parametrize("dataset", TREES)
def test_a_zip_gives_the_same_samples_as_its_folder(dataset: str, tmp_path: Path) -> None:
    manifest, rejected = imported(tmp_path, dataset)
    source, archive = tmp_path / "raw" / dataset, tmp_path / "raw" / f"{dataset}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("__MACOSX/._x.jpg", b"what a Mac adds")
        for path in sorted(source.rglob("*")):
            stream.write(path, path.relative_to(source))
    out = tmp_path / "zip" / "m.jsonl"
    assert run(dataset, archive, out) == (3 if rejected else 0)
    unzipped = read_manifest(out)
    assert {path.removeprefix(f"{archive}/"): w for path, w in errors(out).items()} == rejected
    for left, right in zip(manifest.samples, unzipped.samples, strict=True):
        assert (left.id, left.group, left.kind, left.label) == (
            right.id, right.group, right.kind, right.label,
        )  # fmt: skip
        assert left.image_sha256 == right.image_sha256
        if left.mask:
            one, other = (
                images.read_mask(mask_file(m, s), s.mask_threshold)
                for m, s in ((manifest, left), (unzipped, right))
            )
            assert np.array_equal(one, other)
    used = {unzipped.image_path(sample).resolve() for sample in unzipped.samples}
    written = set((tmp_path / "zip" / "m.files" / "images").rglob("*.*"))
    assert used <= written
    assert len(written - used) <= len(rejected)  # nothing but what a layout asked for
    assert not list((tmp_path / "zip").rglob("*.tmp"))


def test_help_names_every_dataset() -> None:
    assert set(TREES) == set(PUBLIC)
    described = import_dataset.__doc__ or ""
    assert [name for name in PUBLIC if f"{name}," not in described.replace(".", ",")] == []


def test_importing_again_into_the_source_finds_the_same(tmp_path: Path) -> None:
    TREES["dso1"](tmp_path / "d")
    for _ in range(2):
        assert run("dso1", tmp_path / "d", tmp_path / "d" / "m.jsonl") == 0
    manifest = read_manifest(tmp_path / "d" / "m.jsonl")
    assert manifest.header.image_root == "."
    assert len(manifest.samples) == 4


def test_images_are_never_copied(tmp_path: Path) -> None:
    for dataset in TREES:
        imported(tmp_path, dataset)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    written = [path for path in files if path.name.count(".jsonl") == 0]
    written = [path for path in written if not path.name.startswith(".made_by_")]
    assert {path.suffix for path in written} == {".png"}
    folders = {path.relative_to(tmp_path / "out").parts[0] for path in written}
    assert folders == {f"{name}.masks" for name in ("columbia", "nist16", "dso1", "misd")}


def test_verify_decodes_a_folder_too(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "d", 2, 1)
    photograph = next((source / "authentic").iterdir())
    photograph.write_bytes(photograph.read_bytes()[:-100])
    for more, status in (((), 0), (("--verify", "true"), 3)):
        assert run("folder", source, tmp_path / "m.jsonl", *more) == status
    assert list(errors(tmp_path / "m.jsonl").values()) == ["truncated_or_corrupt"]


def test_wrong_sources_are_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    (tmp_path / "empty").mkdir()
    photo(tmp_path / "other" / "x.jpg")
    (tmp_path / "other" / "Au.zip").write_bytes(b"")
    for source, said in (
        ("nowhere", "no such folder"),
        ("a.rar", "nor a zip archive"),
        ("empty", "nothing of casia_v2"),
        ("other", "unpack Au.zip"),
    ):
        assert run("casia_v2", tmp_path / source, tmp_path / "m.jsonl") == 1
        message = capsys.readouterr().err
        assert said in message
        assert message.count("\n") == 1
    assert not (tmp_path / "m.jsonl").exists()
    assert run("casia_v3", tmp_path, tmp_path / "m.jsonl") == 1
    assert "did you mean 'casia_v2'?" in capsys.readouterr().err


def test_a_manifest_replaces_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "x.jpg")
    before = (tmp_path / "x.jpg").read_bytes()
    assert run("folder", tmp_path, tmp_path / "x.jpg") == 1
    assert "must end in .jsonl" in capsys.readouterr().err
    assert (tmp_path / "x.jpg").read_bytes() == before


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in TREES:
        with tempfile.TemporaryDirectory() as folder:
            (GOLDEN / f"{name}.jsonl").write_text(golden_text(Path(folder), name))
