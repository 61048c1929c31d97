import json
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml.geometry import union_mask
from boxpromptiml.manifests.sidecars import teacher_signature
from boxpromptiml.records import Box, BoxArray, ImageArray, MaskArray, Teacher
from boxpromptiml.teachers import grabcut as module
from boxpromptiml.teachers.consensus import Consensus, pseudo_mask
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
    (proposal,) = list(GrabCutTeacher().propose(image, LOOSE))
    assert iou(proposal.mask, truth) > 0.9
    assert iou(ellipse(LOOSE[0], SIZE), truth) < 0.6
    assert proposal.note == ""
    assert 0.5 < proposal.score < 1
    assert proposal.box == (46, 26, 114, 94)


def test_beats_the_plain_rectangle_start_where_texture_alone_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An inpainted region: same colour as its surroundings, but smooth."""
    rng = np.random.default_rng(3)
    image = np.repeat(rng.normal(120, 18, (*SIZE, 1)), 3, axis=2).clip(0, 255).astype(np.uint8)
    truth = ellipse(Box(55, 35, 105, 85), SIZE, 1.0)
    image[truth] = 120
    proposal = next(GrabCutTeacher().propose(image, LOOSE)).mask
    labels = np.zeros(SIZE, np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, labels, (46, 26, 68, 68), *models, 5, cv2.GC_INIT_WITH_RECT)
    assert iou(proposal, truth) > 0.8
    assert iou(proposal, truth) > iou((labels & 1).astype(bool), truth)
    monkeypatch.setattr(module, "_TEXTURE", 0)
    blind = next(GrabCutTeacher().propose(image, LOOSE)).mask
    assert iou(proposal, truth) > iou(blind, truth) + 0.02


def test_the_settings_keep_the_fingerprint_that_pseudo_masks_carry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A changed value here would make every pseudo-mask on every disk stale."""
    monkeypatch.setattr(cv2, "__version__", "4.12.0")
    teacher: Teacher = GrabCutTeacher()
    assert json.loads(json.dumps(teacher.settings)) == teacher.settings
    frozen = "a8150d7a62b247d2600fd1cb0d1fe165f5a0f762bf92abc030acfb638f30e5d5"
    assert teacher_signature(teacher.settings, Consensus().settings) == frozen


def test_the_same_proposal_whatever_came_before_and_however_many_threads() -> None:
    image, _ = scene()
    boxes = np.array([[46, 26, 114, 94], [5, 5, 70, 60], [60, 40, 150, 115]], dtype=np.float32)
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        first = list(GrabCutTeacher().propose(image, boxes))
        cv2.setNumThreads(4)
        cv2.setRNGSeed(99)
        backwards = list(GrabCutTeacher().propose(image.copy(), boxes[::-1]))[::-1]
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
    list(GrabCutTeacher().propose(image, boxes))


def test_no_boxes_no_proposals() -> None:
    assert list(GrabCutTeacher().propose(scene()[0], np.zeros((0, 4), np.float32))) == []


def test_keeps_the_resolution_of_large_images() -> None:
    image, truth = scene()
    large: ImageArray = cv2.resize(image, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC).astype(
        np.uint8
    )
    mask = cv2.resize(truth.astype(np.uint8), None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST) > 0
    (proposal,) = list(GrabCutTeacher().propose(large, LOOSE * 6))
    assert proposal.mask.shape == large.shape[:2]
    assert iou(proposal.mask, mask) > 0.85


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
    (proposal,) = list(GrabCutTeacher().propose(scene()[0], np.array([box], np.float32)))
    assert proposal.note.startswith("degenerate: ")
    assert note in proposal.note
    assert proposal.score == 0
    assert proposal.mask.any() == (note == "under")


def test_a_flat_image_gets_an_ellipse_and_a_note() -> None:
    (proposal,) = GrabCutTeacher().propose(np.full((*SIZE, 3), 90, np.uint8), LOOSE)
    assert proposal.note == "degenerate: no contrast"
    assert np.array_equal(proposal.mask, ellipse(LOOSE[0], SIZE))


def test_a_proposal_that_hardly_fills_the_box_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    speck = lambda crop, guess: np.zeros(crop.shape[:2], bool)  # noqa: E731
    monkeypatch.setattr(module, "_cut", speck)
    (proposal,) = list(GrabCutTeacher().propose(scene()[0], LOOSE))
    assert proposal.note == "degenerate: fills 0% of the box"
    assert np.array_equal(proposal.mask, ellipse(LOOSE[0], SIZE))


def test_the_box_may_be_the_whole_image() -> None:
    image, _ = scene()
    (proposal,) = list(GrabCutTeacher().propose(image, np.array([[0, 0, 160, 120]], np.float32)))
    assert proposal.mask.any()
    assert 0 <= proposal.score <= 1


def test_a_box_partly_outside_is_the_same_as_its_part_inside() -> None:
    image, _ = scene()
    out, cut = np.array([[-40, 20, 90, 100]], np.float32), np.array([[0, 20, 90, 100]], np.float32)
    a, b = (next(GrabCutTeacher().propose(image, boxes)) for boxes in (out, cut))
    assert np.array_equal(a.mask, b.mask)
    assert a.box.x0 == -40


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    corners=st.lists(st.floats(-15, 55, width=32), min_size=4, max_size=4),
    seed=st.integers(0, 5),
    levels=st.sampled_from([1, 2, 256]),
)
def test_any_box_in_any_image_gets_a_proposal_inside_the_box(
    size: tuple[int, int], corners: list[float], seed: int, levels: int
) -> None:
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    boxes: BoxArray = np.array([[x0, y0, x1, y1]], np.float32)
    rng = np.random.default_rng(seed)
    image = rng.integers(0, levels, (*size, 3)).astype(np.uint8) * (255 // levels)
    (proposal,) = list(GrabCutTeacher().propose(image, boxes))
    assert proposal.mask.dtype == bool
    assert proposal.mask.shape == size
    assert 0 <= proposal.score <= 1
    assert (proposal.score == 0) or not proposal.note
    assert not (proposal.mask & ~union_mask(boxes, size)).any()
    assert proposal.mask.any() or "outside" in proposal.note


@pytest.mark.parametrize("box", [(3, 3, 4, 4), (2.5, 2.5, 3.5, 3.5), (0, 3, 10, 3.2), (1, 1, 9, 9)])
def test_an_ellipse_is_never_empty_and_stays_inside(box: tuple[float, ...]) -> None:
    mask = ellipse(np.array(box, np.float32), (10, 10))
    assert mask.any()
    assert not (mask & ~union_mask(np.array([box], np.float32), (10, 10))).any()


def test_an_ellipse_has_the_area_of_an_ellipse() -> None:
    mask = ellipse(Box(10, 20, 210, 120), (140, 220), 1.0)
    assert mask.sum() == pytest.approx(np.pi * 100 * 50, rel=0.005)
    assert np.array_equal(mask[20:120, 10:210], mask[20:120, 10:210][::-1, ::-1])


def test_clusters_are_the_nearest_centres(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.repeat(np.array([[0, 0], [50, 0], [0, 80]], np.float32), 40, axis=0)
    monkeypatch.setattr(module, "_PALETTE", 3)
    cluster, count = module._quantise(points.reshape(10, 12, 2))
    assert count == 3
    assert [len(set(part)) for part in cluster.reshape(3, 40)] == [1, 1, 1]
    assert len(set(cluster.ravel())) == 3


def test_hundreds_of_boxes_take_the_memory_of_one() -> None:
    """Each mask is of the image's size: 60 of them would be 38 MB here."""
    image = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    corners = np.random.default_rng(1).integers(0, 760, (60, 2))
    boxes = np.concatenate([corners, corners + 40], axis=1).astype(np.float32)
    tracemalloc.start()
    try:
        trimap, judgements = pseudo_mask(GrabCutTeacher(), image, boxes, Consensus())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(judgements) == 60
    assert trimap.any()
    assert peak < 20e6


@pytest.mark.parametrize("box", [LOOSE[0], (0, 0, 160, 120), (150, 3, 159, 40), (3.5, 90.2, 9, 99)])
def test_a_crop_to_the_surroundings_gives_the_same_proposal(box: BoxArray) -> None:
    image = np.repeat(np.repeat(scene()[0], 4, axis=0), 4, axis=1)
    box = 4 * np.array(box, np.float32)
    whole = next(GrabCutTeacher().propose(image, box[None]))
    rows, columns = module.surroundings(box, (480, 640))
    moved = box - np.array([columns.start, rows.start] * 2, np.float32)
    part = next(GrabCutTeacher().propose(image[rows, columns], moved[None]))
    np.testing.assert_array_equal(part.mask, whole.mask[rows, columns])
    assert (part.score, part.note) == (whole.score, whole.note)
    assert whole.mask.sum() == part.mask.sum()
