import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, roc_auc_score
from torch.multiprocessing.spawn import start_processes

from boxpromptiml.errors import UserError
from boxpromptiml.metrics import pixel
from boxpromptiml.metrics.pixel import CURVE_THRESHOLDS, LocalizationMetrics
from boxpromptiml.records import MaskArray, ProbArray

Pair = tuple[ProbArray, MaskArray]

UNIT = st.floats(0, 1, width=32)
LEVELS = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.5, 0.55, 0.9, 0.95, 1.0])  # ties, thresholds


@st.composite
def maps(draw: st.DrawFn) -> Pair:
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    elements = draw(st.sampled_from([UNIT, LEVELS]))
    prob = draw(arrays(np.float32, shape, elements=elements.map(np.float32)))
    return prob, draw(arrays(np.bool_, shape))


def truth_with_both_classes(pair: Pair) -> bool:
    return bool(pair[1].any() and not pair[1].all())


def images(count: int = 7, seed: int = 0) -> list[Any]:
    """Maps of uneven sizes, a third of them authentic, one of unknown label."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        shape = (5 + number, 9)
        prob = torch.from_numpy(np.round(rng.random(shape) * 12).astype(np.float32) / 12)
        truth = torch.from_numpy((rng.random(shape) < 0.3).astype(np.uint8))
        label = float(number % 3 != 0)
        truth = truth if label else torch.zeros_like(truth)
        label = float("nan") if number == 4 else label
        rows.append((prob, truth, label, float(rng.random())))
    return rows


def fill(metric: LocalizationMetrics, rows: Any) -> LocalizationMetrics:
    for prob, truth, label, score in rows:
        metric.update([prob], [truth], torch.tensor([label]), torch.tensor([score]))
    return metric


def numbers(metric: Any) -> dict[str, float]:
    values = {name: float(value) for name, value in metric.compute().items()}
    return values | {f"curve{i}": float(v) for i, v in enumerate(metric.f1_curve()[1])}


def assert_same(first: dict[str, float], second: dict[str, float]) -> None:
    assert first == pytest.approx(second, abs=1e-6, nan_ok=True)


@settings(deadline=None)
@given(maps())
def test_counts_agree_with_scikit_learn(pair: Pair) -> None:
    prob, truth = pair
    counts = pixel.pixel_counts(prob, truth)
    flagged = (prob > 0.5).ravel()
    reference = f1_score(truth.ravel(), flagged, zero_division=np.nan)
    assert pixel.f1(counts) == pytest.approx(reference, abs=1e-6, nan_ok=True)
    if truth.any():
        reference = jaccard_score(truth.ravel(), flagged)
        assert pixel.iou(counts) == pytest.approx(reference, abs=1e-6)
    assert sum(counts) == prob.size


@settings(deadline=None)
@given(maps().filter(truth_with_both_classes))
def test_auc_agrees_with_scikit_learn(pair: Pair) -> None:
    prob, truth = pair
    reference = roc_auc_score(truth.ravel(), prob.ravel())
    assert pixel.score_image(prob, truth).auc == pytest.approx(reference, abs=1e-6)


@settings(deadline=None)
@given(UNIT)
def test_auc_of_a_constant_map_is_one_half(value: Any) -> None:
    assert (
        pixel.score_image(np.full((4, 5), value, np.float32), np.eye(4, 5, dtype=bool)).auc == 0.5
    )


@pytest.mark.parametrize("value", [True, False])
def test_auc_of_one_class_is_undefined(value: bool) -> None:
    truth = np.full((3, 3), value)
    assert np.isnan(pixel.score_image(np.zeros((3, 3), np.float32), truth).auc)


@settings(deadline=None)
@given(maps())
def test_curve_is_f1_at_every_threshold(pair: Pair) -> None:
    expected = [pixel.f1(pixel.pixel_counts(*pair, t)) for t in CURVE_THRESHOLDS]
    np.testing.assert_allclose(pixel.score_image(*pair).curve, expected, atol=1e-12)


def test_exactly_the_threshold_is_not_flagged() -> None:
    prob = np.array([[0.5, np.nextafter(np.float32(0.5), 1)]], np.float32)
    assert pixel.pixel_counts(prob, np.ones((1, 2), bool)) == (1, 0, 1, 0)
    assert pixel.pixel_fpr(prob) == 0.5
    assert pixel.pixel_fpr(prob, 0.9) == 0


def test_score_image_has_f1_and_iou_at_its_threshold() -> None:
    prob, truth = images(2)[1][0].numpy(), images(2)[1][1].numpy() != 0
    scores = pixel.score_image(prob, truth, 0.4)
    counts = pixel.pixel_counts(prob, truth, 0.4)
    assert (scores.f1, scores.iou) == (pixel.f1(counts), pixel.iou(counts))


def test_metric_agrees_with_scikit_learn_on_a_set() -> None:
    rows = images(9)
    got = numbers(fill(LocalizationMetrics(), rows))
    flat = [(t.numpy().ravel(), p.numpy().ravel()) for p, t, _, _ in rows if t.any()]
    assert got["pixel_f1"] == pytest.approx(np.mean([f1_score(t, p > 0.5) for t, p in flat]))
    assert got["iou"] == pytest.approx(np.mean([jaccard_score(t, p > 0.5) for t, p in flat]))
    assert got["auc"] == pytest.approx(np.mean([roc_auc_score(t, p) for t, p in flat]))
    clean = [(p.numpy(), score) for p, t, _, score in rows if not t.any()]
    assert got["false_alarm_pixels"] == pytest.approx(np.mean([np.mean(p > 0.5) for p, _ in clean]))
    assert got["false_alarm_images"] == pytest.approx(np.mean([score > 0.5 for _, score in clean]))
    known = [(label, score) for _, _, label, score in rows if not np.isnan(label)]
    labels, scores = (np.array(column) for column in zip(*known, strict=True))
    assert len(labels) == 8
    assert got["image_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    assert got["image_f1"] == pytest.approx(f1_score(labels, scores > 0.5), abs=1e-6)
    assert got["image_accuracy"] == pytest.approx(accuracy_score(labels, scores > 0.5), abs=1e-6)


def test_an_image_score_of_exactly_the_threshold_is_no_alarm() -> None:
    rows = [(torch.zeros(2, 2), None, 0.0, 0.5), (torch.ones(2, 2), torch.ones(2, 2), 1.0, 0.5)]
    got = numbers(fill(LocalizationMetrics(), rows))
    assert (got["false_alarm_images"], got["image_f1"], got["image_accuracy"]) == (0, 0, 0.5)


def test_authentic_images_never_change_the_pixel_scores() -> None:
    manipulated = [row for row in images() if row[1].any()]
    before = numbers(fill(LocalizationMetrics(), manipulated))
    flooded = [(torch.ones(3, 3), torch.zeros(3, 3), 0.0, 0.9), (torch.ones(3, 3), None, 0.0, 0.9)]
    after = numbers(fill(LocalizationMetrics(), manipulated + flooded))
    for name in ("pixel_f1", "iou", "auc", "curve3"):
        assert after[name] == before[name]
    assert (after["false_alarm_pixels"], after["false_alarm_images"]) == (1, 1)
    assert np.isnan(before["false_alarm_pixels"])


def test_unknown_labels_and_missing_masks_are_left_out_where_they_must() -> None:
    nan = float("nan")
    row = images(2)[1]
    unknown = [(torch.ones(2, 2), None, nan, 0.9), (torch.ones(2, 2), None, 1.0, 0.9)]
    alone = numbers(fill(LocalizationMetrics(), [row]))
    got = numbers(fill(LocalizationMetrics(), [row, *unknown]))
    assert got["pixel_f1"] == alone["pixel_f1"]
    assert np.isnan([got["image_auc"], got["image_f1"], got["false_alarm_pixels"]]).all()
    by_mask = numbers(fill(LocalizationMetrics(), [(*row[:2], nan, 0.1)]))
    assert by_mask["pixel_f1"] == alone["pixel_f1"]


def test_a_wholly_manipulated_image_has_no_auc() -> None:
    full = (torch.ones(3, 3), torch.ones(3, 3, dtype=torch.uint8), 1.0, 0.9)
    row = images(2)[1]
    got = numbers(fill(LocalizationMetrics(), [row, full]))
    alone = numbers(fill(LocalizationMetrics(), [row]))
    assert got["auc"] == alone["auc"]
    assert got["pixel_f1"] == pytest.approx((alone["pixel_f1"] + 1) / 2)


def test_a_stacked_batch_equals_single_images() -> None:
    prob, truth = torch.rand(3, 4, 5), torch.rand(3, 4, 5) < 0.5
    label, score = torch.ones(3), torch.rand(3)
    stacked = LocalizationMetrics()
    stacked.update(prob, truth, label, score)
    single = fill(LocalizationMetrics(), zip(prob, truth, label, score, strict=True))
    assert_same(numbers(stacked), numbers(single))


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
@pytest.mark.parametrize("place", ["prob", "image_score"])
def test_logits_are_refused(value: float, place: str) -> None:
    prob, score = torch.full((2, 2), 0.5), torch.tensor([0.5])
    (prob if place == "prob" else score).view(-1)[0] = value
    with pytest.raises(ValueError, match=f"{place} must be a probability"):
        LocalizationMetrics().update([prob], [None], torch.tensor([0.0]), score)


def test_differing_sizes_and_counts_are_refused() -> None:
    one = torch.tensor([1.0])
    with pytest.raises(ValueError, match="differ in size"):
        LocalizationMetrics().update([torch.ones(2, 2)], [torch.ones(2, 3)], one, one)
    with pytest.raises(ValueError, match="zip"):
        LocalizationMetrics().update([torch.ones(2, 2)] * 2, [None] * 2, one, one)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_label_that_contradicts_its_mask_is_refused(label: float) -> None:
    truth = torch.full((2, 2), 1 - label)
    with pytest.raises(UserError, match="contradicts the mask"):
        fill(LocalizationMetrics(), [(torch.ones(2, 2), truth, label, 0.5)])


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(7)))
def test_order_does_not_matter(order: Any) -> None:
    rows = images()
    shuffled = fill(LocalizationMetrics(), [rows[i] for i in order])
    assert_same(numbers(shuffled), numbers(fill(LocalizationMetrics(), rows)))


def test_reset_clone_pickle_and_merge() -> None:
    rows = images()
    whole = fill(LocalizationMetrics(0.4), rows)
    expected = numbers(whole)
    assert_same(numbers(whole.clone()), expected)
    assert_same(numbers(pickle.loads(pickle.dumps(whole))), expected)  # noqa: S301
    first, second = (
        fill(LocalizationMetrics(0.4), rows[:2]),
        fill(LocalizationMetrics(0.4), rows[2:]),
    )
    first.merge_state(second)
    assert_same(numbers(first), expected)
    whole.reset()
    assert_same(numbers(fill(whole, rows)), expected)


def test_sums_stay_in_double_precision_when_a_module_is_cast() -> None:
    module = torch.nn.Module()
    module.metric = LocalizationMetrics()
    module.half()
    fill(module.metric, images())
    assert module.metric.f1_sum.dtype == torch.float64
    assert_same(numbers(module.metric), numbers(fill(LocalizationMetrics(), images())))


PARTS = (((0, 2, 4, 6), (1, 3, 5)), (tuple(range(7)), ()))  # uneven, and a process without images


def score_shares(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    rows = images()
    got = [numbers(fill(LocalizationMetrics(), [rows[i] for i in part[rank]])) for part in PARTS]
    (folder / f"{rank}.json").write_text(json.dumps(got))
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    start_processes(score_shares, args=(tmp_path,), nprocs=2, start_method="fork")
    expected = numbers(fill(LocalizationMetrics(), images()))
    for rank in range(2):
        for got in json.loads((tmp_path / f"{rank}.json").read_text()):
            assert_same(got, expected)
