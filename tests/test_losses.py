import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from boxpromptiml.losses import (
    distillation_loss,
    image_label_loss,
    masked_bce,
    masked_dice,
)

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _bce(logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    return masked_bce(logits, target, valid, torch.ones(len(logits)))


def _dice(logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    return masked_dice(logits, target, valid, torch.ones(len(logits)))


def _case(seed: int, batch: int = 3) -> Case:
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, 1, 5, 6)
    logits = torch.randn(shape, generator=rng, dtype=torch.float64) * 3
    target = torch.rand(shape, generator=rng, dtype=torch.float64)
    valid = torch.rand(shape, generator=rng) > 0.4
    return logits, target, valid


def _mix(logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    return distillation_loss(logits, target, valid, torch.ones(len(logits)), dice_weight=0.7)


LOSSES = [_bce, _dice, _mix]


def test_bce_is_torchs_on_the_selected_pixels() -> None:
    logits, target, valid = _case(0)
    expected = F.binary_cross_entropy_with_logits(logits[valid], target[valid])
    torch.testing.assert_close(_bce(logits, target, valid), expected)


def test_dice_of_hard_masks_is_one_minus_f1() -> None:
    logits, target, valid = _case(1)
    logits, hard = logits.sign() * 80, (target > 0.5).double()
    scores = [
        f1_score(t[v].numpy(), (x[v] > 0).numpy())
        for x, t, v in zip(logits, hard, valid, strict=True)
    ]
    assert _dice(logits, hard, valid).item() == pytest.approx(1 - np.mean(scores))


def test_dice_is_zero_at_the_soft_target_and_lowest_there() -> None:
    _, target, valid = _case(2)
    logits = target.logit().requires_grad_()
    loss = _dice(logits, target, valid)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-12


def test_dice_leaves_out_images_without_a_manipulated_valid_pixel() -> None:
    logits, target, valid = _case(3)
    target[0] = 0
    target[1][valid[1]] = 0
    alone = _dice(logits[2:], target[2:], valid[2:])
    torch.testing.assert_close(_dice(logits, target, valid), alone)


def test_weight() -> None:
    logits, target, valid = _case(4)
    bce, dice = _bce(logits, target, valid), _dice(logits, target, valid)
    torch.testing.assert_close(distillation_loss(logits, target, valid, torch.ones(3), 0.0), bce)
    torch.testing.assert_close(
        distillation_loss(logits, target, valid, torch.ones(3), 2.0), bce + 2 * dice
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("empty", ["valid", "target"])
def test_nothing_to_learn_from(loss: object, empty: str) -> None:
    logits, target, valid = _case(5)
    (valid if empty == "valid" else target).zero_()
    logits.requires_grad_()
    value = loss(logits, target, valid)  # type: ignore[operator]
    value.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    if empty == "valid" or loss is _dice:
        assert value.item() == 0
        assert not logits.grad.any()


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), junk=st.sampled_from([0.0, 1.0, -7.5, 1e30, np.inf, np.nan]))
def test_invalid_pixels_never_count(loss: object, seed: int, junk: float) -> None:
    logits, target, valid = _case(seed)
    other_logits, other_target = logits.clone(), target.clone()
    other_logits[~valid] = junk
    other_target[~valid] = junk
    values: list[torch.Tensor] = []
    gradients: list[torch.Tensor] = []
    for x, t in ((logits, target), (other_logits, other_target)):
        x.requires_grad_()
        values.append(loss(x, t, valid))  # type: ignore[operator]
        gradients.extend(torch.autograd.grad(values[-1], x))
    assert torch.equal(values[0], values[1])
    assert torch.equal(gradients[0], gradients[1])
    assert not gradients[1][~valid].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_gradcheck(loss: object) -> None:
    logits, target, valid = _case(6, batch=2)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target, valid), (logits,))  # type: ignore[operator]


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_logits_are_summed_in_single(loss: object) -> None:
    logits, target, valid = _case(7)
    value = loss(logits.bfloat16(), target.float(), valid)  # type: ignore[operator]
    assert value.dtype == torch.float32


def test_shapes_must_agree() -> None:
    logits, target, valid = _case(8)
    with pytest.raises(ValueError, match="differ in shape"):
        _bce(logits, target[:, 0], valid)


def test_a_weight_counts_an_image_that_often() -> None:
    logits, target, valid = _case(8)
    valid[:] = True
    weight = torch.tensor([0.0, 1.0, 2.0])
    again = [1, 2, 2]
    for loss in (masked_bce, masked_dice):
        torch.testing.assert_close(
            loss(logits, target, valid, weight),
            loss(logits[again], target[again], valid[again], torch.ones(3)),
        )
        assert loss(logits, target, valid, torch.zeros(3)).item() == 0


def test_image_labels_unknown_ones_left_out() -> None:
    logits = torch.tensor([0.3, -2.0, 50.0, 1.0], requires_grad=True)
    label = torch.tensor([1.0, 0.0, float("nan"), 1.0])
    weight = torch.tensor([1.0, 1.0, 1.0, 3.0])
    each = F.binary_cross_entropy_with_logits(logits[[0, 1, 3]], label[[0, 1, 3]], reduction="none")
    loss = image_label_loss(logits, label, weight)
    torch.testing.assert_close(loss, (each * weight[[0, 1, 3]]).sum() / 5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[2] == 0
    assert image_label_loss(logits, torch.full((4,), torch.nan), weight).item() == 0
