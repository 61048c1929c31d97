from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from boxpromptiml.models.configs import FusionConfig, StudentConfig
from boxpromptiml.models.fusion import Fused
from boxpromptiml.models.student import Student

SWIN = "swin_tiny_patch4_window7_224"
SMALL = StudentConfig("mobilenetv3_small_100", fusion=FusionConfig(width=16, prototypes=8))


def _student(config: StudentConfig = SMALL) -> Student:
    torch.manual_seed(0)
    return Student(config)


def test_budget(capsys: pytest.CaptureFixture[str]) -> None:
    student = Student(StudentConfig()).eval()
    parameters = sum(p.numel() for p in student.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        student(torch.rand(1, 3, 224, 224))
    macs = counter.get_total_flops() / 2
    with capsys.disabled():
        print(f"\nstudent: {parameters / 1e6:.3f} M parameters, {macs / 1e9:.3f} GMAC at 224")  # noqa: T201 (the figure is wanted)
    assert parameters <= 5.6e6
    assert macs <= 1.45e9


@pytest.mark.parametrize("residuals", ["none", "srm"])
@pytest.mark.parametrize("size", [(250, 190), (31, 65), (7, 5), (64, 64)])
def test_shapes_at_odd_sizes(residuals: Any, size: tuple[int, int]) -> None:
    student = _student(StudentConfig("mobilenetv3_small_100", residuals)).eval()
    with torch.no_grad():
        out = student(torch.rand(2, 3, *size))
    assert out.logits.shape == (2, 1, *size)
    assert out.image_logit.shape == (2,)


@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv3_small_100", "convnext_atto", "tiny_vit_5m_224", SWIN]
)
def test_every_family_learns_everywhere(name: str) -> None:
    stages = (1, 2, 3, 4) if name in {"resnet10t", "mobilenetv3_small_100"} else (0, 1, 2, 3)
    student = _student(StudentConfig(name, "srm", stages=stages)).eval()  # no stochastic depth
    with torch.no_grad():  # timm starts the last norm of many blocks at 0: nothing would pass
        for parameter in student.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    size = (224, 224) if name == SWIN else (64, 96)
    out = student(torch.rand(2, 3, *size))
    (out.logits.square().mean() + out.image_logit.sum()).backward()
    silent = [n for n, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_padding_is_replication_cut_off_again() -> None:
    student = _student().eval()
    image = torch.rand(1, 3, 60, 50)
    padded = torch.cat([image, image[..., -1:, :].expand(-1, -1, 4, -1)], dim=2)
    padded = torch.cat([padded, padded[..., -1:].expand(-1, -1, -1, 14)], dim=3)
    with torch.no_grad():
        small, large = student(image), student(padded)
    torch.testing.assert_close(small.logits, large.logits[..., :60, :50])


def test_normalises_inside() -> None:
    student = _student().eval()
    seen: list[torch.Tensor] = []
    student.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    student(torch.tensor([0.485, 0.456, 0.406 + 0.225]).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    values = seen[0][0, :, 0, 0]
    torch.testing.assert_close(values, torch.tensor([0.0, 0.0, 1.0]), atol=1e-5, rtol=0)


def test_image_logit_is_the_mean_of_the_top_percent() -> None:
    student = _student().eval()
    student.head = torch.nn.Sequential()
    ramp = torch.arange(400.0).view(1, 1, 20, 20)
    fused = Fused(ramp, ramp, ramp, None, ramp)
    student.fusion.forward = lambda _: fused  # type: ignore[assignment,method-assign]
    student.backbone.strides = (2,)
    out = student(torch.rand(1, 3, 40, 40))
    assert out.image_logit.item() == (396 + 397 + 398 + 399) / 4
    cut = student(torch.rand(1, 3, 40, 37))  # the last column of cells holds padding alone
    assert cut.image_logit.item() == (395 + 396 + 397 + 398) / 4


HEADED = StudentConfig("mobilenetv3_small_100", "srm", image_head=True)


def test_an_untrained_image_head_corrects_nothing() -> None:
    headed, plain = _student(HEADED).eval(), _student(replace(HEADED, image_head=False)).eval()
    plain.load_state_dict(headed.state_dict(), strict=False)
    image = torch.rand(2, 3, 70, 90)
    torch.testing.assert_close(headed(image).image_logit, plain(image).image_logit)


def test_image_head_learns_without_changing_the_map_through_its_weights() -> None:
    student = _student(HEADED).eval()
    assert student.image_head is not None
    features = torch.rand(2, student.backbone.channels[-1], 4, 6, requires_grad=True)
    logits = torch.randn(2, 1, 4, 6, requires_grad=True)
    for parameter in student.image_head.parameters():
        torch.nn.init.normal_(parameter)
    student.image_head(features, logits).sum().backward()
    assert features.grad is not None
    assert features.grad.any()
    assert logits.grad is None
    assert all(p.grad is not None and p.grad.any() for p in student.image_head.parameters())


def test_image_head_ignores_the_padding() -> None:
    student = _student(HEADED).eval()
    assert student.image_head is not None
    for parameter in student.image_head.parameters():
        torch.nn.init.normal_(parameter)
    seen: list[torch.Size] = []
    student.image_head.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    student(torch.rand(1, 3, 70, 100))
    stride = student.backbone.strides[-1]
    assert seen[0][-2:] == (-(-70 // stride), -(-100 // stride))


def test_starts_at_a_low_prior() -> None:
    out = _student().eval()(torch.rand(2, 3, 64, 64))
    assert -3 < out.logits.mean().item() < -1


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("memory", ["learnable", "ema"])
def test_constant_images_stay_finite(value: float, memory: Any) -> None:
    fusion = FusionConfig(width=16, prototypes=8, memory=memory)
    student = _student(StudentConfig("mobilenetv3_small_100", "srm", fusion=fusion))
    out = student(torch.full((2, 3, 64, 64), value))
    out.logits.mean().backward()
    assert out.logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())


@pytest.mark.parametrize("memory", ["learnable", "ema"])
def test_bfloat16_autocast(memory: Any) -> None:
    fusion = FusionConfig(width=16, prototypes=8, memory=memory)
    student = _student(StudentConfig("tiny_vit_5m_224", "srm", fusion=fusion))
    image = torch.rand(2, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = student(image)
    out.logits.mean().backward()
    assert out.logits.dtype == torch.float32
    student.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        low = student(image).logits
    with torch.no_grad():
        torch.testing.assert_close(low, student(image).logits, atol=0.1, rtol=0.1)


def test_channels_last_gives_the_same_map() -> None:
    student = _student(StudentConfig("tiny_vit_5m_224", "srm")).eval()
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        plain = student(image).logits
        student.to(memory_format=torch.channels_last)
        last = student(image.contiguous(memory_format=torch.channels_last)).logits
    torch.testing.assert_close(plain, last, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("memory", ["none", "learnable", "ema"])
def test_state_dict_round_trip(memory: Any) -> None:
    config = StudentConfig("tiny_vit_5m_224", fusion=FusionConfig(memory=memory))
    first, second = Student(config), Student(config).eval()
    image = torch.rand(2, 3, 64, 64)
    first(image)
    second(image)  # fills timm's cache of attention biases before the weights arrive
    second.load_state_dict(first.state_dict())
    assert not {"mean", "std"} & set(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first.eval()(image).logits, second(image).logits)
