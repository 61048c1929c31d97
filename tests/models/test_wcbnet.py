from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

from boxpromptiml.errors import UserError
from boxpromptiml.models.cam import views_from_classifier
from boxpromptiml.models.configs import CamConfig, Method, WCBConfig
from boxpromptiml.models.wcbnet import DENSE_SCALES, WCBNet

SMALL = "mobilenetv3_small_050"


def make(levels: int = 1, cam: CamConfig = CamConfig(), **settings: Any) -> WCBNet:
    torch.manual_seed(0)
    net = WCBNet(WCBConfig(**({"backbone": SMALL} | settings)), levels, cam=cam).eval()
    for parameter in net.parameters():  # away from the zeros of the start
        if parameter.ndim < 2:
            parameter.data += 0.1 * torch.randn_like(parameter)
    if net.weighting is not None:
        torch.nn.init.normal_(net.weighting.score.weight)
    return net


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 6, 64, 96, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "backbone",
    [SMALL, "mobilenetv3_small_100", "resnet18", "efficientnet_b0", "convnext_atto", "regnety_002"],
)
def test_the_weighting_adds_at_most_3_percent(backbone: str) -> None:
    info: Any = timm.create_model(backbone, features_only=True).feature_info
    count = len(info)
    net = WCBNet(WCBConfig(backbone=backbone, stages=tuple(range(min(count, 4)))), 1)
    assert net.weighting is not None
    added = sum(p.numel() for p in net.weighting.parameters())
    rest = sum(p.numel() for p in net.parameters() if p.requires_grad) - added
    assert 0 < added <= 0.03 * rest


@pytest.mark.parametrize("pooling", ["mean", "dense"])
@pytest.mark.parametrize("weighting", [True, False])
def test_map_and_logit_have_the_shapes_of_a_localizer(
    image: torch.Tensor, pooling: str, weighting: bool
) -> None:
    net = make(pooling=pooling, weighting=weighting)
    logits, image_logit = net(image)
    assert logits.shape == (2, 1, 64, 96)
    assert image_logit.shape == (2,)
    image_logit.sum().backward()
    layers: list[Any] = [*net.classifier]
    if net.weighting is not None:
        layers.append(net.weighting.score)
    assert all(layer.weight.grad.abs().max() > 0 for layer in layers)


def test_block_weights_depend_on_the_image_and_average_to_one(image: torch.Tensor) -> None:
    _, _, weights = make(pooling="dense").classify(image)  # with these weights none saturates
    torch.testing.assert_close(weights.mean(dim=1), torch.ones(2))
    assert (weights[0] != weights[1]).all()
    assert (weights > 0).all()
    _, _, equal = make(weighting=False).classify(image)
    assert (equal == 1).all()


def test_an_image_that_looks_the_same_everywhere_has_its_logit_in_every_place() -> None:
    """The classifier's vectors mean the same with either pooling."""
    for pooling in ("mean", "dense"):
        net = make(pooling=pooling)
        _logit, maps, weights = net.classify(torch.rand(1, 6, 64, 64))
        flat = [m.mean(dim=(2, 3), keepdim=True).expand_as(m) for m in maps]
        pooled = [net._pool(m) for m in flat]
        parts = [layer(p) for layer, p in zip(net.classifier, pooled, strict=True)]
        expected = (torch.cat(parts, dim=1) * weights).mean(dim=1) + net.bias
        vectors = net.vectors()
        each = [torch.einsum("bchw,c->bhw", m, v) for m, v in zip(flat, vectors, strict=True)]
        found: Any = sum(
            weights[:, i, None, None] * F.interpolate(e[:, None], (64, 64))[:, 0]
            for i, e in enumerate(each)
        )
        torch.testing.assert_close(found[0] / 4 + net.bias, expected.expand(64, 64))


def test_with_mean_pooling_the_map_of_one_scale_averages_to_the_logit() -> None:
    net = make(pooling="mean", stages=(2,), weighting=False)
    image = torch.rand(1, 6, 64, 64)
    _, maps, _ = net.classify(image)
    logits, image_logit = net(image)
    (view,) = views_from_classifier(maps, net.vectors())
    torch.testing.assert_close(view.mean() + net.bias, image_logit[0])
    relative = (view - view.min()) / (view.max() - view.min()) * image_logit.sigmoid()
    up = F.interpolate(relative[:, None], size=(64, 64), mode="bilinear")
    inner = np.s_[..., 8:-8, 8:-8]  # interpolation never reaches the extremes outside cell centres
    assert (
        np.corrcoef(up[inner].detach().flatten(), logits.sigmoid()[inner].detach().flatten())[0, 1]
        > 0.999
    )


def test_dense_pooling_sees_a_small_region_that_the_mean_drowns() -> None:
    features = torch.zeros(1, 16, 32, 32)
    features[..., 4:8, 8:12] = 1
    dense = make(pooling="dense")._pool(features).view(len(DENSE_SCALES), 16)
    torch.testing.assert_close(dense[:, 0], torch.tensor([1 / 64, 1 / 16, 1 / 4, 1.0]))
    assert make()._pool(features).max() == 1 / 64


def test_inputs_are_what_the_switch_says(image: torch.Tensor) -> None:
    other_levels, other_rgb = image.clone(), image.clone()
    other_levels[:, 3:] += 0.5
    other_rgb[:, :3] *= 0.5
    for inputs, sees_rgb, sees_levels in (("rgb", 1, 0), ("sel", 0, 1), ("both", 1, 1)):
        net = make(inputs=inputs)
        base = net(image).image_logit
        assert (net(other_rgb).image_logit != base).any() == bool(sees_rgb)
        assert (net(other_levels).image_logit != base).any() == bool(sees_levels)


@pytest.mark.parametrize("method", ["classifier", "gradcam", "layercam"])
def test_a_view_is_one_block_and_fusion_is_not(image: torch.Tensor, method: Method) -> None:
    network, other = make(cam=CamConfig(method)), make(cam=CamConfig(method, view=1))
    with torch.inference_mode():
        fused, single = network(image), other(image)
    torch.testing.assert_close(fused.image_logit, single.image_logit)
    assert (fused.logits != single.logits).any()
    assert torch.isfinite(fused.logits).all()
    if method == "classifier":
        _, maps, _ = network.classify(image)
        view = views_from_classifier(maps, network.vectors())[1]
        up = F.interpolate(view[:, None], size=(64, 96), mode="bilinear")[0].detach().flatten()
        found = single.logits.sigmoid()[0].flatten()
        assert np.corrcoef(up, found)[0, 1] > 0.99


@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_gradient_maps_work_under_bfloat16_autocast_and_leave_no_gradients(
    image: torch.Tensor, method: Method
) -> None:
    network = make(cam=CamConfig(method))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = network(image).logits
    assert torch.isfinite(logits).all()
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("levels", "settings", "said"),
    [
        (0, {}, "error_levels"),
        (1, {"inputs": "ela"}, "inputs"),
        (1, {"pooling": "max"}, "pooling"),
        (1, {"cam": CamConfig(view=4)}, "view"),
        (1, {"backbone": "resnet_18"}, "resnet18"),
    ],
)
def test_wrong_settings_are_named(levels: int, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(levels, **settings)
