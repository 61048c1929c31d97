import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import fingerprint
from boxpromptiml.records import (
    AUTHENTIC,
    MANIPULATED,
    UNSURE,
    Box,
    BoxArray,
    Description,
    ImageArray,
    MaskArray,
    Proposal,
)
from boxpromptiml.teachers.consensus import Consensus, fuse, jittered, pseudo_mask

SIZE = (20, 30)
BOX = Box(0, 0, 30, 20)
IMAGE = np.zeros((*SIZE, 3), np.uint8)


def answer(columns: slice, score: float = 0.9) -> Proposal:
    mask = np.zeros(SIZE, bool)
    mask[:, columns] = True
    return Proposal(mask, score, BOX)


class FillTeacher:
    """Fills every box; remembers what it was asked."""

    def __init__(self, score: float = 0.9) -> None:
        self.calls: list[BoxArray] = []
        self.score = score

    @property
    def settings(self) -> Description:
        return {"name": "fill"}

    def propose(self, image: ImageArray, boxes: BoxArray) -> list[Proposal]:
        self.calls.append(boxes.copy())
        return [Proposal(self._fill(image, box), self.score, Box(*box)) for box in boxes]

    @staticmethod
    def _fill(image: ImageArray, box: BoxArray) -> MaskArray:
        rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
        inside: MaskArray = (
            (columns > box[0]) & (columns < box[2]) & (rows > box[1]) & (rows < box[3])
        )
        return inside


def test_one_answer_a_box_is_the_plain_union() -> None:
    a, b = answer(slice(0, 8)), answer(slice(5, 12))
    trimap = fuse([[a], [b]], SIZE, Consensus())
    assert trimap.dtype == np.uint8
    assert np.array_equal(trimap, np.where(a.mask | b.mask, MANIPULATED, AUTHENTIC))


def test_agreement_of_five_is_counted() -> None:
    proposals = [answer(slice(0, 5 * n)) for n in (1, 2, 3, 4, 5)]  # columns of 5, 4, 3, 2, 1 votes
    trimap = fuse([proposals], SIZE, Consensus(copies=5, upper=0.8, lower=0.2))
    expected = [MANIPULATED, MANIPULATED, UNSURE, UNSURE, AUTHENTIC, AUTHENTIC]
    assert trimap[0, ::5].tolist() == expected
    strict = fuse([proposals], SIZE, Consensus(copies=5, upper=1.0, lower=0.0))
    assert strict[0, ::5].tolist() == [MANIPULATED, UNSURE, UNSURE, UNSURE, UNSURE, AUTHENTIC]


def test_a_sure_box_wins_over_an_unsure_one_and_boxes_do_not_dilute_each_other() -> None:
    split = [answer(slice(0, 10)), answer(slice(20, 21))]
    sure = [answer(slice(5, 15))] * 2
    consensus = Consensus(copies=2)
    for groups in ([split, sure], [sure, split]):
        trimap = fuse(groups, SIZE, consensus)
        assert trimap[0, [0, 7, 12, 25]].tolist() == [UNSURE, MANIPULATED, MANIPULATED, AUTHENTIC]


def test_a_box_without_a_trusted_answer_is_unsure_all_over() -> None:
    weak, strong = answer(slice(0, 10), 0.3), answer(slice(5, 15), 0.5)
    consensus = Consensus(min_score=0.5)
    assert (fuse([[weak]], SIZE, consensus) == UNSURE).all()
    trimap = fuse([[weak, strong]], SIZE, consensus)
    assert trimap[0, [0, 7, 12, 20]].tolist() == [AUTHENTIC, MANIPULATED, MANIPULATED, AUTHENTIC]


def test_an_empty_answer_is_never_sure_that_the_image_is_authentic() -> None:
    empty = Proposal(np.zeros(SIZE, bool), 0.9, Box(2, 2, 10, 9))
    trimap = fuse([[empty]], SIZE, Consensus())
    assert (trimap[2:9, 2:10] == UNSURE).all()
    assert np.count_nonzero(trimap) == 7 * 8


def test_without_boxes_everything_is_authentic_and_nobody_is_asked() -> None:
    teacher = FillTeacher()
    trimap, proposals = pseudo_mask(
        teacher, IMAGE, np.zeros((0, 4), np.float32), Consensus(copies=3)
    )
    assert trimap.shape == SIZE
    assert not trimap.any()
    assert proposals == []
    assert teacher.calls == []


def test_all_copies_of_all_boxes_go_to_the_teacher_in_one_call() -> None:
    boxes = np.array([[2, 2, 12, 12], [15, 3, 28, 18]], np.float32)
    teacher = FillTeacher()
    trimap, proposals = pseudo_mask(teacher, IMAGE, boxes, Consensus(copies=4, jitter=0.1))
    (asked,) = teacher.calls
    assert asked.shape == (8, 4)
    assert len(proposals) == 8
    assert np.array_equal(asked[[0, 4]], boxes)
    assert np.abs(asked - np.repeat(boxes, 4, axis=0)).max() <= 0.1 * 15 + 1e-4
    assert set(np.unique(trimap)) == {AUTHENTIC, UNSURE, MANIPULATED}
    assert trimap[7, 7] == trimap[10, 21] == MANIPULATED


def test_the_prompts_depend_on_seed_and_boxes_but_not_on_order_of_work() -> None:
    first, second = np.array([[2, 2, 12, 12]], np.float32), np.array([[3, 2, 12, 12]], np.float32)

    def asked(boxes: BoxArray, seed: int = 0) -> list[list[float]]:
        teacher = FillTeacher()
        pseudo_mask(teacher, IMAGE, boxes, Consensus(copies=3, seed=seed))
        return teacher.calls[0].tolist()

    once = asked(first)
    asked(second)
    assert asked(first) == once
    assert asked(first.astype(np.float64)) == once
    assert asked(first, seed=1) != once
    shift = np.array(asked(second))[1] - np.array(once)[1]
    assert np.abs(shift[1:]).max() > 1e-3  # not the same jitter for other boxes


def test_a_teacher_that_forgets_a_box_is_a_bug() -> None:
    class Lazy(FillTeacher):
        def propose(self, image: ImageArray, boxes: BoxArray) -> list[Proposal]:
            return super().propose(image, boxes)[:-1]

    with pytest.raises(RuntimeError, match="gave 5 proposals for 6 boxes"):
        pseudo_mask(Lazy(), IMAGE, np.array([[1, 1, 9, 9]] * 2, np.float32), Consensus(copies=3))


@settings(max_examples=50, deadline=None)
@given(
    votes=st.lists(
        st.lists(st.booleans(), min_size=4, max_size=4).filter(any), min_size=1, max_size=6
    ),
    lower=st.floats(0, 0.49),
    upper=st.floats(0.5, 1),
)
def test_trimap_follow_the_votes(votes: list[list[bool]], lower: float, upper: float) -> None:
    proposals = [Proposal(np.array([vote]), 1.0, BOX) for vote in votes]
    trimap = fuse([proposals], (1, 4), Consensus(copies=len(votes), lower=lower, upper=upper))
    for pixel in range(4):
        share = sum(vote[pixel] for vote in votes) / len(votes)
        expected = MANIPULATED if share >= upper else AUTHENTIC if share <= lower else UNSURE
        assert trimap[0, pixel] == expected
    assert np.array_equal(
        trimap,
        fuse([proposals[::-1]], (1, 4), Consensus(copies=len(votes), lower=lower, upper=upper)),
    )


def test_jittered_is_box_after_box_and_starts_with_the_box_itself() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 5, 25, 18]], np.float32)
    copies = jittered(boxes, 3, 0.2, SIZE, np.random.default_rng(0)).reshape(2, 3, 4)
    assert np.array_equal(copies[:, 0], boxes)
    assert len(np.unique(copies.reshape(-1, 4), axis=0)) == 6
    assert np.array_equal(jittered(boxes, 1, 0.2, SIZE, np.random.default_rng(0)), boxes)
    assert jittered(boxes[:0], 3, 0.2, SIZE, np.random.default_rng(0)).shape == (0, 4)


def test_the_fingerprint_holds_every_setting() -> None:
    changes = {"copies": 5, "jitter": 0.2, "upper": 0.9, "lower": 0.1, "min_score": 0.5, "seed": 3}
    assert set(changes) == set(Consensus.__dataclass_fields__)
    variants = [Consensus(), *(Consensus(**{k: v}) for k, v in changes.items())]  # type: ignore[arg-type]
    assert len({fingerprint(v.settings) for v in variants}) == 7
    assert json.loads(json.dumps(Consensus().settings)) == Consensus().settings


@pytest.mark.parametrize(
    "wrong",
    [{"copies": 0}, {"jitter": 0.5}, {"jitter": -0.1}, {"lower": 0.8, "upper": 0.8}, {"upper": 1.1},
     {"lower": -0.1}, {"min_score": 2.0}, {"seed": -1}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="consensus"):
        Consensus(**wrong)  # type: ignore[arg-type]
