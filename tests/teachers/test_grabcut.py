import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml.errors import UserError
from boxpromptiml.geometry import union_mask
from boxpromptiml.io.files import fingerprint
from boxpromptiml.records import BoxArray, ImageArray, MaskArray, Teacher
from boxpromptiml.teachers import grabcut as module
from boxpromptiml.teachers.grabcut import GrabCutTeacher, ellipse

SIZE = (120, 160)
LOOSE = np.array([[46, 26, 114, 94]], dtype=np.float32)  # the object's box, 15 % larger a side


def scene(seed: int = 0) -> tuple[ImageArray, MaskArray]:
    """A reddish triangle (tip up) on noisy green."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = (rows >= 35) & (rows < 85) & (np.abs(columns - 80) < (rows - 35) * 0.5)
    image = rng.normal((70, 110, 60), 12, (*SIZE, 3))
    image[mask] = rng.normal((150, 90, 60), 12, (int(mask.sum()), 3))
    return image.clip(0, 255).astype(np.uint8), mask


def iou(a: MaskArray, b: MaskArray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_finds_an_object_that_no_box_or_ellipse_describes() -> None:
    image, truth = scene()
    (answer,) = GrabCutTeacher().propose(image, LOOSE)
    assert iou(answer.mask, truth) > 0.9
    assert iou(ellipse(LOOSE[0], SIZE), truth) < 0.6
    assert answer.note == ""
    assert 0.5 < answer.score < 1
    assert answer.box == (46, 26, 114, 94)


def test_beats_the_plain_rectangle_start_where_texture_alone_differs() -> None:
    """An inpainted region: same colour as its surroundings, but smooth."""
    rng = np.random.default_rng(3)
    image = np.repeat(rng.normal(120, 18, (*SIZE, 1)), 3, axis=2).clip(0, 255).astype(np.uint8)
    truth = ellipse((55, 35, 105, 85), SIZE, 1.0)
    image[truth] = 120
    answer = GrabCutTeacher().propose(image, LOOSE)[0].mask
    labels = np.zeros(SIZE, np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, labels, (46, 26, 68, 68), *models, 5, cv2.GC_INIT_WITH_RECT)
    assert iou(answer, truth) > 0.8
    assert iou(answer, truth) > iou((labels & 1).astype(bool), truth)
    blind = GrabCutTeacher(texture=0).propose(image, LOOSE)[0].mask
    assert iou(answer, truth) > iou(blind, truth) + 0.02


def test_is_a_teacher_with_a_fingerprint_of_every_setting() -> None:
    teacher: Teacher = GrabCutTeacher()
    assert teacher.settings["name"] == "grabcut"
    assert teacher.settings["weights_sha256"] is None
    assert json.loads(json.dumps(teacher.settings)) == teacher.settings
    changes = {
        "margin": 0.3, "max_side": 128, "palette": 8, "texture": 5.0, "prior_edge": 0.7,
        "rounds": 3, "doubt": 0.2, "iterations": 2, "min_fill": 0.1, "max_fill": 0.9, "seed": 7,
    }  # fmt: skip
    assert set(changes) == set(GrabCutTeacher.__dataclass_fields__)
    variants = [GrabCutTeacher(**{name: value}) for name, value in changes.items()]  # type: ignore[arg-type]
    assert len({fingerprint(t.settings) for t in [teacher, *variants]}) == len(variants) + 1
    assert fingerprint(GrabCutTeacher().settings) == fingerprint(teacher.settings)


@pytest.mark.parametrize(
    "wrong",
    [{"max_side": 4}, {"palette": 0}, {"rounds": 0}, {"iterations": 0}, {"doubt": 0.5},
     {"min_fill": 0.9, "max_fill": 0.5}, {"margin": 0.0}, {"prior_edge": 1.5}],
)  # fmt: skip
def test_refuses_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="grabcut"):
        GrabCutTeacher(**wrong)  # type: ignore[arg-type]


def test_the_same_answer_whatever_came_before_and_however_many_threads() -> None:
    image, _ = scene()
    boxes = np.array([[46, 26, 114, 94], [5, 5, 70, 60], [60, 40, 150, 115]], dtype=np.float32)
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        first = GrabCutTeacher().propose(image, boxes)
        cv2.setNumThreads(4)
        cv2.setRNGSeed(99)
        backwards = GrabCutTeacher().propose(image.copy(), boxes[::-1])[::-1]
    finally:
        cv2.setNumThreads(before)
    for a, b in zip(first, backwards, strict=True):
        assert np.array_equal(a.mask, b.mask)
        assert (a.score, a.box, a.note) == (b.score, b.box, b.note)


def test_leaves_the_image_and_the_boxes_alone() -> None:
    image, _ = scene()
    image.setflags(write=False)
    boxes = LOOSE.copy()
    boxes.setflags(write=False)
    GrabCutTeacher().propose(image, boxes)


def test_no_boxes_no_answers() -> None:
    assert GrabCutTeacher().propose(scene()[0], np.zeros((0, 4), np.float32)) == []


def test_keeps_the_resolution_of_large_images() -> None:
    image, truth = scene()
    large = cv2.resize(image, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(truth.astype(np.uint8), None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST) > 0
    (answer,) = GrabCutTeacher().propose(large, LOOSE * 6)
    assert answer.mask.shape == large.shape[:2]
    assert iou(answer.mask, mask) > 0.85


@pytest.mark.parametrize(
    ("box", "note"),
    [
        ((50, 50, 51, 51), "under"),
        ((50.5, 50.5, 52.5, 52.5), "under"),
        ((20, 30, 150, 32), "under"),
        ((200, 10, 260, 60), "outside"),
        ((-50, -50, -10, -10), "outside"),
        ((60, 60, 60, 80), "outside"),
    ],
)
def test_boxes_that_nothing_can_be_learned_from(box: tuple[float, ...], note: str) -> None:
    (answer,) = GrabCutTeacher().propose(scene()[0], np.array([box], np.float32))
    assert answer.note.startswith("degenerate: ")
    assert note in answer.note
    assert answer.score == 0
    assert answer.mask.any() == (note == "under")


def test_a_flat_image_gets_an_ellipse_and_a_note() -> None:
    (answer,) = GrabCutTeacher().propose(np.full((*SIZE, 3), 90, np.uint8), LOOSE)
    assert answer.note == "degenerate: no contrast"
    assert np.array_equal(answer.mask, ellipse(LOOSE[0], SIZE))


def test_an_answer_that_hardly_fills_the_box_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    speck = lambda self, crop, guess: np.zeros(crop.shape[:2], bool)  # noqa: E731
    monkeypatch.setattr(GrabCutTeacher, "_cut", speck)
    (answer,) = GrabCutTeacher().propose(scene()[0], LOOSE)
    assert answer.note == "degenerate: fills 0% of the box"
    assert np.array_equal(answer.mask, ellipse(LOOSE[0], SIZE))


def test_the_box_may_be_the_whole_image() -> None:
    image, _ = scene()
    (answer,) = GrabCutTeacher().propose(image, np.array([[0, 0, 160, 120]], np.float32))
    assert answer.mask.any()
    assert 0 <= answer.score <= 1


def test_a_box_partly_outside_is_the_same_as_its_part_inside() -> None:
    image, _ = scene()
    out, cut = np.array([[-40, 20, 90, 100]], np.float32), np.array([[0, 20, 90, 100]], np.float32)
    a, b = (GrabCutTeacher().propose(image, boxes)[0] for boxes in (out, cut))
    assert np.array_equal(a.mask, b.mask)
    assert a.box.x0 == -40


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    corners=st.lists(st.floats(-15, 55, width=32), min_size=4, max_size=4),
    seed=st.integers(0, 5),
    levels=st.sampled_from([1, 2, 256]),
)
def test_any_box_in_any_image_is_answered_inside_the_box(
    size: tuple[int, int], corners: list[float], seed: int, levels: int
) -> None:
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    boxes: BoxArray = np.array([[x0, y0, x1, y1]], np.float32)
    rng = np.random.default_rng(seed)
    image = rng.integers(0, levels, (*size, 3)).astype(np.uint8) * (255 // levels)
    (answer,) = GrabCutTeacher().propose(image, boxes)
    assert answer.mask.dtype == bool
    assert answer.mask.shape == size
    assert 0 <= answer.score <= 1
    assert (answer.score == 0) or not answer.note
    assert not (answer.mask & ~union_mask(boxes, size)).any()
    assert answer.mask.any() or "outside" in answer.note


@pytest.mark.parametrize("box", [(3, 3, 4, 4), (2.5, 2.5, 3.5, 3.5), (0, 3, 10, 3.2), (1, 1, 9, 9)])
def test_an_ellipse_is_never_empty_and_stays_inside(box: tuple[float, ...]) -> None:
    mask = ellipse(np.array(box, np.float32), (10, 10))
    assert mask.any()
    assert not (mask & ~union_mask(np.array([box], np.float32), (10, 10))).any()


def test_an_ellipse_has_the_area_of_an_ellipse() -> None:
    mask = ellipse((10, 20, 210, 120), (140, 220), 1.0)
    assert mask.sum() == pytest.approx(np.pi * 100 * 50, rel=0.005)
    assert np.array_equal(mask[20:120, 10:210], mask[20:120, 10:210][::-1, ::-1])


def test_clusters_are_the_nearest_centres() -> None:
    points = np.repeat(np.array([[0, 0], [50, 0], [0, 80]], np.float32), 40, axis=0)
    cluster, count = module._quantise(points.reshape(10, 12, 2), 3, seed=0)
    assert count == 3
    assert [len(set(part)) for part in cluster.reshape(3, 40)] == [1, 1, 1]
    assert len(set(cluster.ravel())) == 3
