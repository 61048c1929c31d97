import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.io import images
from boxpromptiml.io.files import generator
from boxpromptiml.manifests.manifest import Manifest, read_manifest, write_manifest
from boxpromptiml.records import Sample
from boxpromptiml.synth.boxes import Annotator, draw
from data_prep.__main__ import main
from tests.helpers.data import make_manifest


def _run(manifest: Path, out: Path, *more: object) -> int:
    return main(["boxes", "--manifest", str(manifest), "--out", str(out), *map(str, more)])


def path_of(manifest: Manifest, sample: Sample) -> Path:
    """Of the mask."""
    path = manifest.mask_path(sample)
    assert path is not None
    return path


@pytest.fixture
def made(tmp_path: Path) -> Manifest:
    return make_manifest(tmp_path, "train", 5, 2)


def test_the_job_draws_by_sample_whatever_the_order_or_subset(
    made: Manifest, tmp_path: Path
) -> None:
    assert _run(made.path, tmp_path / "a.jsonl", "--seed", 7) == 0
    subset = write_manifest(tmp_path / "s.jsonl", made.header, reversed(made.samples[1:4]))
    assert _run(subset.path, tmp_path / "b.jsonl", "--seed", 7) == 0
    assert _run(made.path, tmp_path / "c.jsonl", "--seed", 8) == 0
    full, part, other = (
        {s.id: s.boxes for s in read_manifest(tmp_path / f"{name}.jsonl").samples} for name in "abc"
    )
    assert part.items() < full.items()
    assert all(full[key] != other[key] for key in full if full[key])


def test_the_job_records_what_it_did(made: Manifest, tmp_path: Path) -> None:
    assert _run(made.path, tmp_path / "deep" / "a.jsonl", "--preset", "sloppy", "--merge", 0.3) == 0
    drawn = read_manifest(tmp_path / "deep" / "a.jsonl")
    notes = drawn.header.notes["boxes"]
    assert notes == notes | {"preset": "sloppy", "merge": 0.3, "looseness": 0.4, "seed": 0}
    assert [s.box_origin for s in drawn.samples] == ["mask"] * 5 + [None] * 2
    assert [s.boxes for s in drawn.samples[5:]] == [(), ()]
    for sample in drawn.samples[:5]:
        mask = images.read_mask(path_of(drawn, sample))
        rng = generator(0, sample.id)
        assert sample.boxes == draw(mask, Annotator(0.4, 0.1, 0.3, 0.01, 0.5), rng)


def test_bad_masks_are_rejected_and_unknown_labels_stay(made: Manifest, tmp_path: Path) -> None:
    first, second, third, fourth, fifth, *authentic = made.samples
    path_of(made, first).write_bytes(b"no image")
    images.write_png(path_of(made, second), np.full((64, 95), 255, np.uint8))
    images.write_png(path_of(made, third), np.zeros((64, 96), np.uint8))
    samples = [first, second, third, replace(fourth, label=None, boxes=None)]
    samples += [replace(fifth, mask=None, boxes=None), *authentic]
    manifest = write_manifest(tmp_path / "bad.jsonl", made.header, samples)
    assert _run(manifest.path, tmp_path / "out.jsonl") == 3
    rows = [json.loads(x) for x in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
    reasons = [row["reason"] for row in rows]
    assert reasons == ["unknown_format", "size_mismatch", "empty_mask"]
    kept = read_manifest(tmp_path / "out.jsonl").samples
    assert [s.boxes for s in kept] == [None, None, (), ()]
    assert [s.label for s in kept] == [None, 1, 0, 0]


def test_a_negative_seed_is_a_users_mistake(
    made: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(made.path, tmp_path / "out.jsonl", "--seed", "-1") == 2
    assert "seed: Input should be greater than or equal to 0" in capsys.readouterr().err
