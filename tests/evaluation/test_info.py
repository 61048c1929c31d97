"""What `boxpromptiml info` says of files and folders, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from boxpromptiml.cli import main
from boxpromptiml.inference.checkpoint import build_network
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.io import images
from boxpromptiml.io.files import sha256_file
from tests.helpers.models import CALIBRATION, SPECS, make_network

V1 = Path(__file__).parents[1] / "compat" / "v1"
SPEC = replace(SPECS["student"], calibration=replace(CALIBRATION, copy_weight=1.0), copy_move=True)


def said(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["info", str(path)]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_a_localizer_is_its_spec_size_hash_and_the_scores_of_its_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checkpoints" / "student.safetensors"
    write_safetensors(path, make_network(SPEC), SPEC.to_dict())
    (tmp_path / "metrics_val.json").write_text('{"pixel_f1": 0.5, "f1_curve": [[0.5, 0.5]]}')
    found = said(path, capsys)
    assert found["kind"] == "localizer"
    assert found["sha256"] == sha256_file(path)
    assert found["student"]["backbone"] == "mobilenetv3_small_050"
    assert found["trained_on"] == ["allocation and location"]
    assert found["calibration"]["temperature"] == 2.0
    assert found["val_scores"] == {"pixel_f1": 0.5}
    assert found["parameters"] == sum(p.numel() for p in build_network(SPEC).parameters())
    old = said(V1 / "student.ckpt", capsys)
    assert (old["trained_on"], old["calibration"][:4]) == ("not recorded", "none")
    assert (found["copy_move"], old["copy_move"]) == (True, False)


def test_a_manifest_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    found = said(V1 / "manifest.jsonl", capsys)
    assert found["images"] == {"test, authentic": 1, "test, manipulated": 1}
    assert found["images_with"]["mask"] == 1
    assert found["datasets"] == {"made": 2}


def test_folders_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(V1 / "evaluation", capsys)["kind"] == "evaluation"
    assert said(V1 / "pseudo", capsys)["summary"]["images"] == 2
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text((V1 / "config.yaml").read_text())
    assert said(tmp_path / "run", capsys)["kind"] == "run"
    path = tmp_path / "student.safetensors"
    write_safetensors(path, make_network(SPEC), SPEC.to_dict())
    images.write_png(tmp_path / "a.png", np.zeros((40, 40, 3), np.uint8))
    words = [f"--checkpoint={path}", f"--images={tmp_path / 'a.png'}", "--isolate=false"]
    assert main(["localize", *words, f"--out={tmp_path / 'maps'}", "--fpr=0.1"]) == 0
    capsys.readouterr()
    found = said(tmp_path / "maps", capsys)
    assert (found["kind"], found["maps"], found["fpr"]) == ("predictions", 1, [0.1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.ckpt", None, "no such weights file"),
        ("photo.png", b"\x89PNG", "is not a checkpoint"),
        ("m.jsonl", b"{}\n{}\n", "m.jsonl:2"),
        ("folder", None, "no folder of `fit`, `localize`"),
    ],
)
def test_what_is_none_of_ours_is_one_line(
    tmp_path: Path, name: str, content: bytes | None, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    elif name == "folder":
        path.mkdir()
    assert main(["info", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_nothing_that_a_terminal_would_act_on_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *rows = (V1 / "manifest.jsonl").read_text().splitlines()
    notes = {"made": "\x1b[2J\x9b31m\u202eevil"}
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join([json.dumps(json.loads(header) | {"notes": notes}), *rows, ""]))
    assert main(["info", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    assert yaml.safe_load(printed)["notes"] == notes
