import json
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from boxpromptiml.errors import UserError
from data_prep.annotations import coco, cvat, labelme, voc
from data_prep.annotations.screen import image_name
from tests.helpers.annotation_files import HOSTILE, READERS


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("module", [voc, cvat])
def test_hostile_xml_is_refused_at_once(module: ModuleType, name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    path.write_text(
        HOSTILE[name].replace("annotation>", "annotations>" if module is cvat else "annotation>")
    )
    start = time.process_time()
    if module is cvat and name == "nesting":
        assert module.read(path).images == []
    else:
        with pytest.raises(UserError, match=r"x\.xml") as caught:
            module.read(path)
        assert ("DTDForbidden" in str(caught.value)) == ("DOCTYPE" in HOSTILE[name])
    assert time.process_time() - start < 5


@pytest.mark.parametrize("kind", READERS)
def test_files_that_are_none(kind: str, tmp_path: Path) -> None:
    module = READERS[kind]
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2**30)  # sparse
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xfd<")
    for name in ("pipe", "huge", "latin", "missing", "."):
        with pytest.raises(UserError, match=name):
            module.read(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        '{"images": [], "images": []}',
        '{"images": NaN}',
        "[" * 100_000,
        '{"a": 1' + "0" * 5000 + "}",
        '{"images": [{"width": 1' + "0" * 400 + "}]}",
    ],
)
@pytest.mark.parametrize("module", [coco, labelme])
def test_hostile_json_is_refused(module: ModuleType, text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json"):
        module.read(tmp_path / "x.json")


@pytest.mark.parametrize("side", [-120, 0, None, True, "x", []])
def test_sizes_that_are_none(side: Any, tmp_path: Path) -> None:
    content = {"imagePath": "x.jpg", "imageWidth": side, "imageHeight": 80, "shapes": []}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="not LabelMe"):
        labelme.read(tmp_path / "x.json")
    row = {"id": 1, "file_name": "x.jpg", "width": side, "height": 80}
    (tmp_path / "x.json").write_text(json.dumps({"images": [row], "annotations": []}))
    assert not coco.read(tmp_path / "x.json").images


@pytest.mark.parametrize(
    ("name", "location", "expected"),
    [
        ("x.jpg", "", "x.jpg"),
        ("x.jpg", "a/b", "a/b/x.jpg"),
        ("./x.jpg", "a", "x.jpg"),
        ("../../images/x.jpg", "a", "images/x.jpg"),
        (r"C:\my photos\x.jpg", "a", "C:/my photos/x.jpg"),
        ("/etc/../x.jpg", "", "etc/x.jpg"),
    ],
)
def test_names(name: str, location: str, expected: str) -> None:
    assert image_name(name, location) == expected
