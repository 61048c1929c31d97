import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest, write_manifest
from boxpromptiml.synth.boxes import PRESETS, Annotator, draw, sample_rng
from boxpromptiml.synth.forge import coarse_box
from data_prep.__main__ import main
from tests.helpers.data import make_manifest

EXACT = Annotator(0.0, 0.0, 0.0, 0.0, 0.0)


def _mask(size, *boxes):
    mask = np.zeros(size, dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def _run(manifest, out, *more) -> int:
    return main(["boxes", "--manifest", str(manifest), "--out", str(out), *map(str, more)])


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [("tight", 0, 0.02), ("7-second", -0.02, 0.15), ("sloppy", -0.1, 0.4)],
)
def test_looseness_is_uniform_between_the_presets_ends(preset, low, high):
    mask = _mask((100, 200), (50, 40, 150, 65))
    loose = []
    for seed in range(300):
        (box,) = draw(mask, PRESETS[preset], np.random.default_rng(seed))
        loose += [(50 - box.x0) / 100, (40 - box.y0) / 25, (box.x1 - 150) / 100, (box.y1 - 65) / 25]
    assert min(loose) >= low - 3e-4
    assert max(loose) <= high + 3e-4
    if low > -0.05:  # a box that would cut a tenth of the region is drawn anew, without cuts
        quarters = np.quantile(loose, [0.05, 0.25, 0.5, 0.75, 0.95])
        expected = low + (high - low) * np.array([0.05, 0.25, 0.5, 0.75, 0.95])
        assert quarters == pytest.approx(expected, abs=0.05 * (high - low))


def test_seven_seconds_are_looser_than_tight_and_tighter_than_sloppy():
    mask = _mask((200, 300), (100, 50, 200, 150))
    areas = []
    for name in ("tight", "7-second", "sloppy"):
        drawn = [draw(mask, PRESETS[name], np.random.default_rng(s))[0] for s in range(50)]
        areas.append(np.mean([(b.x1 - b.x0) * (b.y1 - b.y0) for b in drawn]) / 100**2)
    assert areas == pytest.approx([1.02**2, 1.13**2, 1.3**2], abs=0.06)  # 1 + twice the mean


def test_the_same_boxes_as_the_generator_of_forgeries_in_distribution():
    mask = _mask((200, 300), (100, 50, 200, 150))
    rng = np.random.default_rng(0)
    ours = np.array([draw(mask, PRESETS["7-second"], rng)[0] for _ in range(400)])
    theirs = np.array([coarse_box(mask, rng)[0] for _ in range(400)])
    assert ours.mean(axis=0) == pytest.approx(theirs.mean(axis=0), abs=1.0)
    assert ours.std(axis=0) == pytest.approx(theirs.std(axis=0), rel=0.12)


@pytest.mark.parametrize(("gap", "count"), [(0, 1), (1, 1), (4, 1), (5, 2)])
def test_regions_within_the_merging_distance_share_a_box(gap, count):
    mask = _mask((100, 200), (10, 10, 30, 30), (30 + gap, 10, 50 + gap, 30))
    drawn = draw(mask, Annotator(0, 0, 0.02, 0, 0), np.random.default_rng(0))
    assert len(drawn) == count
    assert drawn[-1].x1 == 50 + gap


def test_a_diagonal_gap_counts_as_its_longer_side():
    mask = _mask((100, 200), (10, 10, 30, 30), (33, 34, 50, 50))
    for merge, count in ((0.015, 2), (0.02, 1)):
        assert len(draw(mask, Annotator(0, 0, merge, 0, 0), np.random.default_rng(0))) == count


def test_one_box_an_image():
    mask = _mask((100, 200), (10, 20, 30, 40), (150, 60, 190, 90))
    annotator = Annotator(0, 0, 0, 0, 0, per_image=True)
    assert draw(mask, annotator, np.random.default_rng(0)) == ((10, 20, 190, 90),)


def test_small_regions_are_missed_as_often_as_asked_and_the_largest_never():
    small = [(10 * i, 10, 10 * i + 4, 14) for i in range(1, 18)]
    mask = _mask((100, 200), *small, (20, 40, 80, 80))
    annotator = Annotator(0, 0, 0, 0.01, 0.5)
    counts = [len(draw(mask, annotator, np.random.default_rng(seed))) for seed in range(60)]
    assert np.mean(counts) == pytest.approx(1 + 17 / 2, abs=1)
    always = Annotator(0, 0, 0, 1.0, 1.0)
    assert draw(mask, always, np.random.default_rng(0)) == ((20, 40, 80, 80),)
    assert draw(_mask((100, 200), *small[:1]), PRESETS["7-second"], np.random.default_rng(0))


def test_a_box_never_loses_more_than_a_tenth_of_its_region():
    mask = _mask((400, 600), (100, 100, 300, 300))
    for seed in range(100):
        (box,) = draw(mask, Annotator(0.0, 0.4, 0, 0, 0), np.random.default_rng(seed))
        assert mask[geometry.pixel_slices(box, mask.shape)].sum() >= 0.9 * mask.sum()


@settings(max_examples=50)
@given(
    boxes=st.lists(
        st.tuples(*[st.integers(0, 19)] * 4).map(lambda b: (b[0], b[1], b[0] + 1, b[1] + 1)),
        min_size=1,
        max_size=8,
    ),
    name=st.sampled_from(sorted(PRESETS)),
    seed=st.integers(0, 2**32),
)
def test_boxes_lie_in_the_image_and_are_not_empty(boxes, name, seed):
    mask = _mask((20, 20), *boxes)
    drawn = draw(mask, PRESETS[name], np.random.default_rng(seed))
    assert drawn
    for box in drawn:
        assert 0 <= box.x0 < box.x1 <= 20
        assert 0 <= box.y0 < box.y1 <= 20
    exact = draw(mask, EXACT, np.random.default_rng(seed))
    assert np.array_equal(geometry.union_mask(geometry.as_array(exact), mask.shape) & mask, mask)


def test_settings_out_of_range_are_errors():
    for bad in ({"looseness": -1}, {"tightness": 0.5}, {"merge": float("nan")}):
        with pytest.raises(UserError, match=next(iter(bad))):
            Annotator(
                **{"looseness": 0, "tightness": 0, "merge": 0} | bad,
                overlook_area=0,
                overlook_chance=0,
            )


def test_samples_and_seeds_have_draws_of_their_own():
    firsts = {sample_rng(name, seed).random() for name in ("a", "b", "\ud800") for seed in (0, 1)}
    assert len(firsts) == 6
    assert sample_rng("a", 0).random() in firsts


@pytest.fixture
def made(tmp_path):
    return make_manifest(tmp_path, "train", 5, 2)


def test_the_job_draws_by_sample_whatever_the_order_or_subset(made, tmp_path):
    assert _run(made.path, tmp_path / "a.jsonl", "--seed", 7) == 0
    subset = write_manifest(tmp_path / "s.jsonl", made.header, reversed(made.samples[1:4]))
    assert _run(subset.path, tmp_path / "b.jsonl", "--seed", 7) == 0
    assert _run(made.path, tmp_path / "c.jsonl", "--seed", 8) == 0
    full, part, other = (
        {s.id: s.boxes for s in read_manifest(tmp_path / f"{name}.jsonl").samples} for name in "abc"
    )
    assert part.items() < full.items()
    assert all(full[key] != other[key] for key in full if full[key])


def test_the_job_records_what_it_did(made, tmp_path):
    assert _run(made.path, tmp_path / "deep" / "a.jsonl", "--preset", "sloppy", "--merge", 0.3) == 0
    drawn = read_manifest(tmp_path / "deep" / "a.jsonl")
    notes = drawn.header.notes["boxes"]
    assert notes == notes | {"preset": "sloppy", "merge": 0.3, "looseness": 0.4, "seed": 0}
    assert [s.box_origin for s in drawn.samples] == ["mask"] * 5 + [None] * 2
    assert [s.boxes for s in drawn.samples[5:]] == [(), ()]
    for sample in drawn.samples[:5]:
        mask = images.read_mask(drawn.mask_path(sample))
        rng = sample_rng(sample.id, 0)
        assert sample.boxes == draw(mask, Annotator(0.4, 0.1, 0.3, 0.01, 0.5), rng)


def test_bad_masks_are_rejected_and_unknown_labels_stay(made, tmp_path):
    from dataclasses import replace

    first, second, third, fourth, fifth, *authentic = made.samples
    made.mask_path(first).write_bytes(b"no image")
    images.write_png(made.mask_path(second), np.full((64, 95), 255, np.uint8))
    images.write_png(made.mask_path(third), np.zeros((64, 96), np.uint8))
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


def test_a_negative_seed_is_a_users_mistake(made, tmp_path, capsys):
    assert _run(made, tmp_path / "out.jsonl", "--seed", "-1") == 1
    assert "--seed" in capsys.readouterr().err
