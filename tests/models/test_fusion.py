from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from boxpromptiml.models.configs import FusionConfig
from boxpromptiml.models.fusion import GatedFusion, PrototypeMemory

CHANNELS = (3, 4)
SIZES = ((6, 8), (3, 4))


def _maps(batch: int = 2) -> list[torch.Tensor]:
    return [torch.randn(batch, c, *s) for c, s in zip(CHANNELS, SIZES, strict=True)]


def _fusion(**options: Any) -> GatedFusion:
    torch.manual_seed(0)
    fusion = GatedFusion(CHANNELS, FusionConfig(**({"width": 5, "prototypes": 3} | options)))
    fusion(_maps())  # moves the statistics of the norms, and plants EMA prototypes
    return fusion


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _numpy_bilinear(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, h, w) to (C, *size), half-pixel centres, borders repeated."""
    for axis, n in ((1, size[0]), (2, size[1])):
        m = x.shape[axis]
        place = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, m - 1)
        part = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
        x = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    return x


def _numpy_fused(s: dict[str, np.ndarray], maps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """F_fused and A_final of the module docstring's formulas for one image, level by level."""
    projected, gates = [], []
    for i, f in enumerate(maps):
        x = np.einsum("oc,chw->ohw", s[f"project.{i}.0.weight"][:, :, 0, 0], f)
        mean, var, scale, shift = (
            s[f"project.{i}.1.{k}"][:, None, None]
            for k in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / np.sqrt(var + 1e-5) * scale + shift
        projected.append(_numpy_bilinear(x * _sigmoid(x), SIZES[0]))
        conv = np.einsum("oc,chw->ohw", s[f"gate.{i}.weight"][:, :, 0, 0], projected[-1])
        gates.append(_sigmoid(conv + s[f"gate.{i}.bias"][:, None, None]))
    fused = sum(g * f for g, f in zip(gates, projected, strict=True))
    base = sum(
        ndimage.correlate(f, k, mode="constant")
        for f, k in zip(fused, s["base.weight"][0], strict=True)
    )
    a_base, g_avg = _sigmoid(base + s["base.bias"]), sum(gates) / len(gates)
    bank = s["memory.prototypes"]
    norms = np.linalg.norm(fused, axis=0) * np.linalg.norm(bank, axis=1)[:, None, None]
    w = np.exp(np.einsum("kc,chw->khw", bank, fused) / norms / 0.1)
    recalled = np.einsum("khw,kc->chw", w / w.sum(axis=0), bank)
    read = np.einsum("c,chw->hw", s["memory.read.weight"][0], recalled)
    a_mem = _sigmoid(read + s["memory.read.bias"])
    alpha = _sigmoid(s["alpha_logit"])
    return fused, alpha * (a_base * g_avg) + (1 - alpha) * a_mem


@pytest.mark.parametrize("memory", ["learnable", "ema"])
@pytest.mark.parametrize("output", ["residual", "multiply", "attention"])
def test_equals_the_formulas_written_out(memory: str, output: str) -> None:
    fusion = _fusion(memory=memory, alpha=0.3, output=output).eval()
    maps = _maps(1)
    state = {k: v.double().numpy() for k, v in fusion.state_dict().items()}
    with torch.no_grad():
        found = fusion(maps)
    fused, final = _numpy_fused(state, [m[0].double().numpy() for m in maps])
    refined = {"residual": fused * (1 + final), "multiply": fused * final, "attention": fused}
    np.testing.assert_allclose(found.final[0], final, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(found.refined[0], refined[output], rtol=2e-3, atol=2e-4)


def test_answers_of_the_prototypes_are_a_distribution() -> None:
    fusion = _fusion(memory="ema")
    assert fusion.memory is not None
    fused, _ = fusion.fuse(_maps())
    answers = fusion.memory.weights(fused)
    assert answers.shape == (2, 3, *SIZES[0])
    torch.testing.assert_close(answers.sum(dim=1), torch.ones(2, *SIZES[0]))


def test_switches_remove_what_they_say() -> None:
    def count(**options: Any) -> int:
        return sum(p.numel() for p in _fusion(**options).parameters())

    full = count()
    assert full - count(gates=False) == len(CHANNELS) * (5 * 5 + 5)
    assert full - count(memory="ema") == 3 * 5  # prototypes are a buffer
    assert full - count(learn_alpha=False) == 1
    assert full - count(memory="none") == 3 * 5 + (5 + 1) + 1


def test_without_gates_and_memory_only_the_base_attention_is_left() -> None:
    fusion = _fusion(gates=False, memory="none").eval()
    maps = _maps(1)
    fine, coarse = (p(m) for p, m in zip(fusion.project, maps, strict=True))
    fused = fine + torch.nn.functional.interpolate(coarse, SIZES[0], mode="bilinear")
    expected = fused * (1 + torch.sigmoid(fusion.base(fused)))
    torch.testing.assert_close(fusion(maps).refined, expected)


@pytest.mark.parametrize("learn", [True, False])
def test_alpha_starts_where_told(learn: bool) -> None:
    fusion = _fusion(alpha=0.8, learn_alpha=learn)
    assert torch.sigmoid(fusion.alpha_logit).item() == pytest.approx(0.8)
    assert fusion.alpha_logit.requires_grad is learn
    assert ("alpha_logit" in fusion.state_dict()) is learn


def _clusters(memory: PrototypeMemory, steps: int) -> torch.Tensor:
    """Feeds two kinds of features, along axis 0 and axis 1; returns the feature map."""
    fused = torch.zeros(1, 4, 2, 8)
    fused[0, 0, :, :4] = 3
    fused[0, 1, :, 4:] = 5
    for _ in range(steps):
        memory(fused)
    return fused


def test_ema_prototypes_move_to_their_features() -> None:
    memory = PrototypeMemory(4, 2, ema_decay=0.5)
    _clusters(memory, 1)
    with torch.no_grad():
        memory.prototypes += 0.3
    _clusters(memory, 30)
    expected = torch.eye(4)[:2]
    torch.testing.assert_close(memory.prototypes, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(memory.usage, torch.full((2,), 0.5))


def test_ema_step_is_the_moving_average() -> None:
    memory = PrototypeMemory(2, 1, ema_decay=0.9)
    memory(torch.tensor([2.0, 0.0]).view(1, 2, 1, 1))
    memory(torch.tensor([0.0, 2.0]).view(1, 2, 1, 1))
    expected = torch.tensor([[0.9, 0.1]])
    torch.testing.assert_close(memory.prototypes, expected, atol=1e-4, rtol=0)


def test_ema_is_still_in_eval_and_never_has_gradient() -> None:
    memory = PrototypeMemory(4, 2, ema_decay=0.5)
    fused = _clusters(memory, 3)
    before = memory.prototypes.clone()
    memory.eval()
    memory(fused + torch.rand_like(fused)).sum().backward()
    assert torch.equal(memory.prototypes, before)
    assert not memory.prototypes.requires_grad
    assert {"prototypes", "usage"} <= set(memory.state_dict())


def test_dead_prototypes_are_planted_on_features() -> None:
    memory = PrototypeMemory(4, 3, ema_decay=0.5)
    _clusters(memory, 1)
    with torch.no_grad():
        memory.prototypes[2] = torch.tensor([0.0, 0.0, 0.0, -1.0])  # serves nobody
        memory.usage[2] = 1e-6
    _clusters(memory, 1)
    assert memory.prototypes[2, :2].abs().max() > 0.9


def test_ema_is_deterministic() -> None:
    states = []
    for _ in range(2):
        fusion = _fusion(memory="ema", prototypes=16)
        states.append(fusion.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_two_forwards_before_one_backward() -> None:
    fusion = _fusion(memory="ema")
    first, second = fusion(_maps()).refined, fusion(_maps()).refined
    (first.sum() + second.sum()).backward()


@pytest.mark.parametrize("memory", ["none", "learnable", "ema"])
def test_zero_features_give_finite_gradients(memory: str) -> None:
    fusion = _fusion(memory=memory)
    maps = [torch.zeros_like(m, requires_grad=True) for m in _maps()]
    fusion(maps).refined.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fusion.parameters())
