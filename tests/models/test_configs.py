from dataclasses import fields
from typing import Any

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.models.configs import CamConfig, FusionConfig, StudentConfig, WCBConfig
from boxpromptiml.models.inputs import NetworkInput

WRONG: list[tuple[type[Any], dict[str, Any]]] = [
    (FusionConfig, {"output": "map"}),
    (FusionConfig, {"width": 0}),
    (FusionConfig, {"width": 60_000}),
    (FusionConfig, {"width": 1.5}),
    (FusionConfig, {"width": True}),
    (FusionConfig, {"gates": 1}),
    (FusionConfig, {"memory": "lernable"}),
    (FusionConfig, {"prototypes": 0}),
    (FusionConfig, {"prototypes": 10**9}),
    (FusionConfig, {"alpha": 0.0}),
    (FusionConfig, {"alpha": 1.0}),
    (FusionConfig, {"alpha": float("nan")}),
    (FusionConfig, {"learn_alpha": "yes"}),
    (FusionConfig, {"ema_decay": 1.0}),
    (StudentConfig, {"backbone": 3}),
    (StudentConfig, {"backbone": "x" * 201}),
    (StudentConfig, {"residuals": "bayar"}),
    (StudentConfig, {"image_head": 1}),
    (StudentConfig, {"truncation": 0}),
    (StudentConfig, {"truncation": float("inf")}),
    (StudentConfig, {"stages": ()}),
    (StudentConfig, {"stages": (0, -1)}),
    (StudentConfig, {"stages": tuple(range(17))}),
    (StudentConfig, {"fusion": {"width": 8}}),
    (StudentConfig, {"rgb_mean": (0.5, 0.5)}),
    (StudentConfig, {"rgb_std": (0.0, 1.0, 1.0)}),
    (WCBConfig, {"rgb_mean": (0.5, 0.5, 1.5)}),
    (WCBConfig, {"rgb_std": (1.0, 1.0, float("nan"))}),
    (WCBConfig, {"backbone": None}),
    (WCBConfig, {"inputs": "ela"}),
    (WCBConfig, {"stages": (0.5,)}),
    (WCBConfig, {"weighting": None}),
    (WCBConfig, {"pooling": "max"}),
    (CamConfig, {"method": "eigencam"}),
    (CamConfig, {"view": -1}),
    (CamConfig, {"view": 10**6}),
    (NetworkInput, {"mode": "stretch"}),
    (NetworkInput, {"size": (31, 224)}),
    (NetworkInput, {"size": (224,)}),
    (NetworkInput, {"size": (60_000, 60_000)}),
    (NetworkInput, {"error_levels": (0,)}),
    (NetworkInput, {"error_levels": (101,)}),
    (NetworkInput, {"error_levels": (75,) * 17}),
]


@pytest.mark.parametrize(("kind", "wrong"), WRONG)
def test_types_and_limits_are_checked_when_made(kind: type[Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"\.{next(iter(wrong))}: "):
        kind(**wrong)


def test_every_field_is_tried_above() -> None:
    tried = {(kind, name) for kind, wrong in WRONG for name in wrong}
    kinds = {kind for kind, _ in WRONG}
    assert tried == {(kind, field.name) for kind in kinds for field in fields(kind)}
