import hashlib
from pathlib import Path

import pytest
import torch

from boxpromptiml.errors import UserError
from boxpromptiml.models import sam as module
from boxpromptiml.models.sam import OFFICIAL_SHA256, load_sam
from boxpromptiml.records import ModelType


@pytest.mark.parametrize("name", OFFICIAL_SHA256)
def test_damaged_official_download_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"half of it")
    with pytest.raises(UserError, match="damaged download") as caught:
        load_sam(tmp_path / name, "vit_b")
    assert OFFICIAL_SHA256[name] in str(caught.value)
    assert hashlib.sha256(b"half of it").hexdigest() in str(caught.value)


def test_official_content_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "sam_vit_b_01ec64.pth"
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 1, 1, 768)}, tmp_path / name)
    digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    monkeypatch.setitem(module.OFFICIAL_SHA256, name, digest)
    with pytest.raises(UserError, match="not vit_h; set model_type to vit_b"):  # past the hash
        load_sam(tmp_path / name, "vit_h")


@pytest.mark.parametrize(("width", "held"), [(768, "vit_b"), (1024, "vit_l"), (1280, "vit_h")])
def test_wrong_model_type_names_the_right_one(tmp_path: Path, width: int, held: ModelType) -> None:
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 1, 1, width)}, tmp_path / "w.pth")
    given_type: ModelType = "vit_l" if held != "vit_l" else "vit_b"
    with pytest.raises(UserError, match=f"set model_type to {held}"):
        load_sam(tmp_path / "w.pth", given_type)


@pytest.mark.parametrize(
    "state",
    [
        {"vision_encoder.pos_embed": torch.zeros(1, 64, 64, 768)},
        {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 96)},
        {"image_encoder.pos_embed": 3},
    ],
)
def test_other_networks_are_refused(tmp_path: Path, state: dict[str, object]) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds no weights of Segment Anything"):
        load_sam(tmp_path / "w.pth", "vit_b")


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        ("model", ""),
        ("state_dict", "module."),
        ("model_state_dict", "sam_model."),
        (None, "module."),
        (None, "model.sam."),
    ],
)
def test_what_tools_put_around_the_weights_is_taken_off(
    tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    names = {"image_encoder.pos_embed": torch.zeros(1, 2, 2, 1024), "x": torch.zeros(1)}
    weights: dict[str, object] = {f"{prefix}{name}": value for name, value in names.items()}
    content = weights if wrapper is None else {wrapper: weights, "epoch": 3}
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds vit_l weights, not vit_b"):
        load_sam(tmp_path / "w.pth", "vit_b")
