import sys
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import RawScoresOutputTarget
from torch import nn

from boxpromptiml.errors import UserError
from boxpromptiml.models.cam import (
    evidence_logits,
    fuse_views,
    views_from_classifier,
    views_from_gradients,
)
from boxpromptiml.models.configs import Method


class Reference(nn.Module):
    """Convolutions, global average pooling, one linear layer: where CAM and Grad-CAM agree."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1, stride=2), nn.ReLU())
        self.linear = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.last(self.first(x)).mean(dim=(2, 3)))


IMAGE = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def as_the_library_shows_it(view: torch.Tensor) -> np.ndarray:
    """The positive part, stretched to [0, 1], at the input's size, stretched again."""

    def stretched(x: np.ndarray) -> np.ndarray:
        return (x - x.min()) / (x.max() - x.min() + 1e-7)

    return stretched(cv2.resize(stretched(view.clamp(min=0).detach().numpy()), (48, 32)))


def test_classifier_maps_are_gradcams_on_a_reference_network() -> None:
    net = Reference().eval()
    net.linear.weight.data.abs_()
    features = net.last(net.first(IMAGE))
    (ours,) = views_from_classifier([features], [net.linear.weight[0]])
    gradcam = GradCAM(model=net, target_layers=[net.last])(IMAGE, [RawScoresOutputTarget()] * 2)
    assert (ours > 0).flatten(1).any(dim=1).all()
    for one, two in zip(ours, gradcam, strict=True):
        np.testing.assert_allclose(as_the_library_shows_it(one), two, atol=1e-4)


def test_the_mean_of_a_classifier_map_is_the_logit() -> None:
    net = Reference().eval()
    with torch.no_grad():
        features = net.last(net.first(IMAGE))
        (view,) = views_from_classifier([features], [net.linear.weight[0]])
        mean = view.mean(dim=(1, 2)) + net.linear.bias[0]
        torch.testing.assert_close(mean, net(IMAGE)[:, 0])


@pytest.mark.parametrize(("method", "library"), [("gradcam", GradCAM), ("layercam", LayerCAM)])
def test_gradient_maps_are_the_librarys_even_under_inference_mode(
    method: Method, library: type[Any]
) -> None:
    net = Reference().eval()
    expected = [
        library(model=net, target_layers=[block])(IMAGE, [RawScoresOutputTarget()] * 2)
        for block in (net.first, net.last)
    ]
    with torch.inference_mode():
        found = views_from_gradients(net, [net.first, net.last], IMAGE.clone(), method)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_without_the_library_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(UserError, match=r"boxpromptiml\[cam\]"):
        views_from_gradients(Reference(), [], IMAGE, "gradcam")


def test_fusion_is_the_weighted_mean_of_stretched_views_at_the_input_size() -> None:
    fine, coarse = torch.randn(2, 8, 12) * 5, torch.randn(2, 2, 3)
    weights = torch.tensor([[0.5, 1.5], [2.0, 0.0]])
    fused = fuse_views([fine, coarse], weights, (8, 12))
    one, two = (
        torch.stack([(m - m.min()) / (m.max() - m.min()) for m in view]) for view in (fine, coarse)
    )
    up = F.interpolate(two[:, None], size=(8, 12), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(fused[0, 0], (0.5 * one[0] + 1.5 * up[0]) / 2)
    torch.testing.assert_close(fused[1, 0], one[1])


def test_the_map_is_stretched_and_an_authentic_image_has_no_evidence() -> None:
    fused = torch.tensor([-3.0, 1.0, 5.0]).view(1, 1, 1, 3).repeat(2, 1, 1, 1)
    prob = evidence_logits(fused, torch.tensor([-20.0, 20.0])).sigmoid()
    torch.testing.assert_close(prob[0].flatten(), torch.full((3,), 1e-4), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        prob[1].flatten(), torch.tensor([1e-4, 0.5, 1 - 1e-4]), atol=1e-5, rtol=0
    )
    flat = evidence_logits(torch.full((1, 1, 4, 4), 7.0), torch.tensor([0.0]))
    assert (flat.sigmoid() < 1e-3).all()  # no place stands out
