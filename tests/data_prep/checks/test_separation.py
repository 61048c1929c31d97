import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score

from data_prep.checks.jpeg import compression, quality_of
from data_prep.checks.separation import auc, binned, is_leak, separation

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_quality_is_what_pillow_was_told(mode):
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.fromarray(NOISE).convert(mode).save(buffer, "JPEG", quality=quality)
        found, standard = quality_of(Image.open(buffer).quantization)
        assert standard
        assert found == quality


def test_other_tables_get_the_nearest_quality(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG", quality=80)
    tables = {k: list(v) for k, v in Image.open(buffer).quantization.items()}
    tables[0][0] += 1
    Image.fromarray(NOISE).save(tmp_path / "x.jpg", qtables=tables)
    Image.fromarray(NOISE).save(tmp_path / "y.jpg", quality=80)
    other, usual = compression(tmp_path / "x.jpg"), compression(tmp_path / "y.jpg")
    assert (other.quality, other.standard) == (80, False)
    assert (usual.quality, usual.standard) == (80, True)
    assert other.tables != usual.tables


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_subsampling(tmp_path, subsampling):
    Image.fromarray(NOISE).save(tmp_path / "x.jpg", subsampling=subsampling)
    assert compression(tmp_path / "x.jpg").subsampling == subsampling


def test_grey_other_formats_and_damage(tmp_path):
    Image.fromarray(NOISE).convert("L").save(tmp_path / "x.jpg")
    Image.fromarray(NOISE).save(tmp_path / "x.png")
    (tmp_path / "bad.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:30])
    assert compression(tmp_path / "x.jpg").subsampling == "grey"
    for name in ("x.png", "bad.jpg", "absent.jpg"):
        assert compression(tmp_path / name) is None


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_auc_is_that_of_scikit_learn(rows):
    scores = np.array([score for score, _ in rows], float)
    labels = np.array([label for _, label in rows])
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_auc_needs_both_classes():
    assert auc(np.ones(3), np.ones(3, bool)) is None
    assert auc(np.ones(0), np.ones(0, bool)) is None


def _groups(count):
    return [f"g{n}" for n in range(count)]


def test_a_property_of_one_class_separates():
    labels = np.arange(200) % 2 == 0
    values = np.where(labels, "JPEG", "PNG").tolist()
    assert separation(values, labels, _groups(200)) == 1
    mixed = ["JPEG" if n % 10 == 1 else value for n, value in enumerate(values)]
    assert separation(mixed, labels, _groups(200)) == pytest.approx(0.9, abs=0.02)


def test_no_order_is_assumed():
    rng = np.random.default_rng(0)
    labels = rng.random(400) < 0.5
    values = np.where(labels, rng.choice([75, 95], 400), 85).tolist()
    assert separation(values, labels, _groups(400)) == 1


@pytest.mark.parametrize("values", [2, 30, 1000])
def test_a_property_that_says_nothing_is_chance(values):
    rng = np.random.default_rng(values)
    areas = []
    for _ in range(40):
        labels = rng.random(400) < 0.4
        areas.append(separation(rng.integers(0, values, 400).tolist(), labels, _groups(400)))
        assert not is_leak(areas[-1], labels.sum(), (~labels).sum())
    assert np.mean(areas) == pytest.approx(0.5, abs=0.02)


def test_siblings_do_not_tell_on_each_other():
    """A value that only the images of one group share is no leak, for a network never sees it."""
    labels = np.arange(400) % 4 < 2
    values = [n // 2 for n in range(400)]  # pairs of one label, each with a value of its own
    assert separation(values, labels, [f"g{value}" for value in values]) == pytest.approx(0.5)
    alone = [f"g{n}" for n in range(400)]
    assert separation(values, labels, alone) > 0.6  # what it would be if siblings were ignored


def test_too_few_images_say_nothing():
    labels = np.array([True] * 9 + [False] * 50)
    assert separation(["a"] * 59, labels, _groups(59)) is None


def test_chance_needs_more_than_a_few_images():
    assert not is_leak(0.65, 12, 12)
    assert is_leak(0.65, 200, 200)
    assert not is_leak(0.55, 20000, 20000)  # sure, but small


def test_bins():
    assert binned([]) == []
    assert binned([3.0] * 5) == [1] * 5
    found = binned(list(range(1000)))
    assert len(set(found)) == 20
    assert found == sorted(found)
