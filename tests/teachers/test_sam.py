import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.models.sam import OFFICIAL_SHA256, load_sam
from boxpromptiml.records import Box, BoxArray, ImageArray, MaskArray, Teacher
from boxpromptiml.teachers import sam as module
from boxpromptiml.teachers.config import SamOptions
from boxpromptiml.teachers.consensus import Consensus, pseudo_mask
from boxpromptiml.teachers.sam import SamTeacher
from tests.helpers.tiny_sam import tiny_sam

SIZES = [(48, 70), (200, 131), (128, 128), (3, 500), (1, 1)]
WIDE = 1e6  # a margin that confines to the image only


def teacher(
    margin: float = WIDE, multimask: bool = True, box_batch: int | None = None
) -> SamTeacher:
    return SamTeacher(
        tiny_sam(),
        "tiny",
        "0" * 64,
        SamOptions(margin=margin, multimask=multimask, box_batch=box_batch),
    )


def an_image(size: tuple[int, int], seed: int = 0) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def some_boxes(count: int, size: tuple[int, int], seed: int = 0) -> BoxArray:
    corners = np.sort(np.random.default_rng(seed).uniform(0, 1, (count, 2, 2)), axis=1)
    return (corners.reshape(count, 4) * [size[1], size[0], size[1], size[0]]).astype(np.float32)


def reference(
    predictor: SamPredictor, box: BoxArray, multimask: bool = True
) -> tuple[MaskArray, float, int]:
    """Meta's predictor, one box at a time: mask, predicted IoU and which of the answers."""
    masks, quality, _ = predictor.predict(box=box, multimask_output=multimask)
    best = int(np.argmax(quality))
    return masks[best], float(quality[best]), best


def same(mask: MaskArray, expected: MaskArray) -> None:
    """Equal but for rounding on the edge: the encoder's attention sums in another order."""
    assert (mask != expected).sum() <= max(1, 1e-3 * mask.size)


@pytest.mark.parametrize("box_batch", [None, 1, 4, 64])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_equals_metas_predictor(count: int, box_batch: int | None) -> None:
    tested, predictor, chosen, raw = teacher(box_batch=box_batch), SamPredictor(tiny_sam()), [], []
    differing = total = 0
    for seed, size in enumerate(SIZES):
        image, boxes = an_image(size, seed), some_boxes(count, size, seed)
        predictor.set_image(image)
        proposals = list(tested.propose(image, boxes))
        assert [proposal.box for proposal in proposals] == [Box(*box) for box in boxes.tolist()]
        for proposal, box in zip(proposals, boxes, strict=True):
            mask, quality, best = reference(predictor, box)
            assert proposal.mask.dtype == np.bool_
            assert proposal.mask.shape == size
            differing += int((proposal.mask != mask).sum())
            total += mask.size
            assert proposal.score == pytest.approx(min(max(quality, 0), 1), rel=0, abs=1e-5)
            chosen.append(best)
            raw.append(quality)
    assert differing <= 1e-4 * total  # rounding: sums in another order
    if count == 20:  # the comparison meant something
        assert set(chosen) == {0, 1, 2}
        assert min(raw) < 0
        assert any(0 < quality < 1 for quality in raw)


def test_equals_metas_batched_call() -> None:
    size = (60, 90)
    image, boxes = an_image(size), some_boxes(7, size)
    predictor = SamPredictor(tiny_sam())
    predictor.set_image(image)
    prompts = predictor.transform.apply_boxes_torch(torch.from_numpy(boxes), size)
    masks, quality, _ = predictor.predict_torch(None, None, prompts)
    for i, proposal in enumerate(teacher(box_batch=7).propose(image, boxes)):
        same(proposal.mask, masks[i, quality[i].argmax()].numpy())


def test_single_answer_without_multimask() -> None:
    size = (60, 90)
    image, boxes = an_image(size), some_boxes(5, size)
    predictor = SamPredictor(tiny_sam())
    predictor.set_image(image)
    single = list(teacher(multimask=False).propose(image, boxes))
    for proposal, box in zip(single, boxes, strict=True):
        same(proposal.mask, reference(predictor, box, multimask=False)[0])
    plain = list(teacher().propose(image, boxes))
    assert any((a.mask != b.mask).any() for a, b in zip(single, plain, strict=True))


@pytest.fixture(scope="module")
def pair() -> tuple[Sam, SamPredictor]:
    return tiny_sam(), SamPredictor(tiny_sam())


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 1000),
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    margin=st.floats(0, 2),
)
def test_confined_to_the_box_and_its_margin(
    pair: tuple[Sam, SamPredictor], seed: int, height: int, width: int, margin: float
) -> None:
    size = (height, width)
    image, boxes = an_image(size, seed), some_boxes(2, size, seed)
    pair[1].set_image(image)
    proposals = list(
        SamTeacher(pair[0], "tiny", "", SamOptions(margin=margin)).propose(image, boxes)
    )
    for proposal, box in zip(proposals, boxes, strict=True):
        side = box[2:] - box[:2]
        x0, y0 = np.floor(np.maximum(box[:2] - np.float32(margin) * side, 0)).astype(int)
        x1, y1 = np.ceil(np.minimum(box[2:] + np.float32(margin) * side, size[::-1])).astype(int)
        full = reference(pair[1], box)[0]
        same(proposal.mask[y0:y1, x0:x1], full[y0:y1, x0:x1])
        assert proposal.mask.sum() == proposal.mask[y0:y1, x0:x1].sum()
        assert proposal.note == ("" if proposal.mask.any() else "degenerate: empty")


def test_confinement_removes_what_sam_leaves_outside() -> None:
    size, box = (100, 100), geometry.as_array([Box(40, 40, 60, 60)])
    image = an_image(size)
    (free,), (tight,) = teacher().propose(image, box), teacher(margin=0.1).propose(image, box)
    assert free.mask[:38].any()
    assert not tight.mask[:38].any()
    assert not tight.mask[62:].any()
    assert tight.mask[38:62, 38:62].any()


def test_empty_answers_are_noted() -> None:
    silent = tiny_sam()
    silent.mask_threshold = float("inf")
    (proposal,) = SamTeacher(silent, "tiny", "").propose(an_image((9, 9)), some_boxes(1, (9, 9)))
    assert not proposal.mask.any()
    assert proposal.note == "degenerate: empty"


def test_image_too_thin_for_sam_is_noted() -> None:
    size = (1, 4000)
    proposals = list(teacher().propose(an_image(size), some_boxes(3, size)))
    assert [proposal.note for proposal in proposals] == ["degenerate: image too thin"] * 3
    assert all(p.mask.shape == size and not p.mask.any() and p.score == 0 for p in proposals)


@pytest.mark.parametrize("shift", [-100, 100])
def test_score_is_clipped(shift: float) -> None:
    network = tiny_sam()
    network.mask_decoder.iou_prediction_head.layers[-1].bias.data += shift
    (proposal,) = SamTeacher(network, "tiny", "").propose(an_image((9, 9)), some_boxes(1, (9, 9)))
    assert proposal.score == (1.0 if shift > 0 else 0.0)


@pytest.mark.parametrize("box_batch", [1, 3])
def test_one_encoding_an_image_none_without_boxes(box_batch: int) -> None:
    network, calls = tiny_sam(), {"encoder": 0, "decoder": 0}
    for name, part in (("encoder", network.image_encoder), ("decoder", network.mask_decoder)):
        part.register_forward_pre_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    tested = SamTeacher(network, "tiny", "", SamOptions(box_batch=box_batch))
    assert list(tested.propose(an_image((9, 9)), np.zeros((0, 4), np.float32))) == []
    assert calls == {"encoder": 0, "decoder": 0}
    list(tested.propose(an_image((9, 9)), some_boxes(7, (9, 9))))
    assert calls == {"encoder": 1, "decoder": {1: 7, 3: 3}[box_batch]}


def test_a_read_only_image_is_encoded_once_for_several_calls() -> None:
    network, encoded = tiny_sam(), []
    network.image_encoder.register_forward_pre_hook(lambda *_: encoded.append(1))
    tested, image, boxes = (
        SamTeacher(network, "tiny", ""),
        an_image((50, 60)),
        some_boxes(2, (50, 60)),
    )
    expected = [proposal.mask for proposal in tested.propose(image, boxes)]
    list(tested.propose(image, boxes))
    assert len(encoded) == 2  # it might have been changed in between
    image.flags.writeable = False
    for count in (3, 3):
        found = [proposal.mask for proposal in tested.propose(image, boxes)]
        np.testing.assert_array_equal(found, expected)
        assert len(encoded) == count
    list(tested.propose(image.copy(), boxes))
    assert len(encoded) == 4


def test_one_encoding_for_all_jitters_of_all_boxes() -> None:
    network, encoded = tiny_sam(), []
    network.image_encoder.register_forward_pre_hook(lambda *_: encoded.append(1))
    tested, consensus = SamTeacher(network, "tiny", ""), Consensus(copies=5)
    _, proposals = pseudo_mask(tested, an_image((50, 60)), some_boxes(3, (50, 60)), consensus)
    assert len(proposals) == 15
    assert len(encoded) == 1


def test_only_the_chosen_masks_are_upscaled(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, original = [], Sam.postprocess_masks

    def spy(self: Sam, masks: torch.Tensor, *sizes: tuple[int, int]) -> torch.Tensor:
        shapes.append(tuple(masks.shape[:2]))
        return original(self, masks, *sizes)

    monkeypatch.setattr(Sam, "postprocess_masks", spy)
    list(teacher(box_batch=64).propose(an_image((9, 9)), some_boxes(5, (9, 9))))
    assert shapes == [(1, 1)] * 5


def test_frozen_and_repeatable() -> None:
    network = tiny_sam().train()
    tested = SamTeacher(network, "tiny", "")
    assert not network.training
    assert not any(values.requires_grad for values in network.parameters())
    image, boxes = an_image((40, 50)), some_boxes(3, (40, 50))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first = list(tested.propose(image, boxes))
    list(tested.propose(an_image((70, 20), 1), some_boxes(2, (70, 20))))  # no state is left behind
    for a, b in zip(first, tested.propose(image, boxes), strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
        assert a.score == b.score
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_settings_tell_what_changes_a_proposal() -> None:
    def signed(**changed: Any) -> str:
        return json.dumps(SamTeacher(tiny_sam(), "tiny", "ab", SamOptions(**changed)).settings)

    tested: Teacher = teacher()
    assert tested.settings["name"] == "sam"
    assert tested.settings["official"] is False
    assert tested.settings["versions"]["segment-anything"] == "1.0"
    assert signed() == signed(box_batch=8)
    others: list[dict[str, Any]] = [
        {},
        {"margin": 0.2},
        {"multimask": False},
        {"precision": "bf16"},
    ]
    assert len({signed(**changed) for changed in others}) == 4
    assert "precision" not in signed(precision="fp32")  # as before there was a choice
    meta = SamTeacher(tiny_sam(), "vit_b", OFFICIAL_SHA256["sam_vit_b_01ec64.pth"])
    assert meta.settings["official"] is True


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"margin": -0.1}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"box_batch": 0}, "box_batch"),
        ({"device": "gpu"}, "unknown"),
        ({"precision": "fp16"}, "precision"),
    ],
)
def test_bad_settings(wrong: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=match):
        SamTeacher(tiny_sam(), "tiny", "", SamOptions(**wrong))
    with pytest.raises(UserError, match=match):  # before the weights are read
        SamTeacher.from_checkpoint(tmp_path / "absent.pth", "vit_b", SamOptions(**wrong))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu_is_a_user_error() -> None:
    with pytest.raises(UserError, match="no GPU"):
        SamTeacher(tiny_sam(), "tiny", "", SamOptions(device="cuda:0"))


def shallow(network: Sam) -> Sam:
    """Keep the first of twelve blocks: full widths, a fraction of the time."""
    network.image_encoder.blocks = network.image_encoder.blocks[:1]
    return network


@pytest.mark.slow
def test_true_vit_b_from_both_formats(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stock = sam_model_registry["vit_b"]()
    torch.nn.init.normal_(stock.image_encoder.pos_embed, std=0.02)  # zeros as built
    state = stock.state_dict()
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"model": wrapped, "epoch": 3}, tmp_path / "b.pth")  # as fine-tuning tools save it
    save_file(state, tmp_path / "b.safetensors")
    for name in ("b.pth", "b.safetensors"):
        network, sha256 = load_sam(tmp_path / name, "vit_b")
        loaded = network.state_dict()
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[key], state[key]) for key in state)
        assert sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        (tmp_path / name).unlink()  # 375 MB, and pytest keeps its folders

    size = (96, 140)
    image, boxes = an_image(size), some_boxes(1, size)
    predictor = SamPredictor(shallow(stock))
    predictor.set_image(image)
    mask, quality, _ = reference(predictor, boxes[0])
    (proposal,) = list(
        SamTeacher(shallow(network), "vit_b", sha256, SamOptions(margin=WIDE)).propose(image, boxes)
    )
    same(proposal.mask, mask)
    assert proposal.score == pytest.approx(min(max(quality, 0), 1), abs=1e-5)
    assert 0 < mask.mean() < 1


def test_from_checkpoint_passes_every_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, decoded = tiny_sam(), []
    network.mask_decoder.register_forward_pre_hook(lambda *_: decoded.append(1))
    monkeypatch.setattr(module, "load_sam", lambda *_: (network, "ab"))
    changed: dict[str, Any] = {
        "multimask": False, "margin": 0.3, "box_batch": 2, "precision": "bf16",
    }  # fmt: skip
    built = SamTeacher.from_checkpoint(tmp_path / "w.pth", "vit_b", SamOptions(**changed))
    direct = SamTeacher(tiny_sam(), "vit_b", "ab", SamOptions(**changed))
    assert built.settings == direct.settings
    image, boxes = an_image((30, 40)), some_boxes(5, (30, 40))
    for a, b in zip(built.propose(image, boxes), direct.propose(image, boxes), strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
    assert len(decoded) == 3  # 2 + 2 + 1 boxes
