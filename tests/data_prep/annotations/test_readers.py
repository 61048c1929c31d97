"""What holds for the readers of every format."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from globox import Annotation, AnnotationSet, BoundingBox
from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml.records import Box
from data_prep.annotations import cvat, labelme, voc
from tests.helpers.annotation_files import (
    BAD,
    DRAWN,
    GOOD,
    READERS,
    SIZE,
    boxes_in,
    check,
    corners,
    cvat_text,
    fuzzed,
    labelme_text,
    voc_text,
    words,
)


@pytest.fixture
def written() -> AnnotationSet:
    """What somebody else's writers make of DRAWN."""
    return AnnotationSet(
        Annotation(
            name,
            (SIZE[1], SIZE[0]),
            [BoundingBox.create(label="forged", coords=box) for box in boxes],
        )
        for name, boxes in DRAWN.items()
    )


@pytest.mark.parametrize("kind", READERS)
def test_fractions_and_empty_images_survive_what_globox_writes(
    kind: str, written: AnnotationSet, tmp_path: Path
) -> None:
    if kind == "coco":
        written.save_coco(tmp_path / "a.json", auto_ids=True)
    elif kind == "cvat":
        written.save_cvat(tmp_path / "a.xml")
    elif kind == "voc":
        written.save_pascal_voc(tmp_path)
    elif kind == "labelme":
        written.save_labelme(tmp_path)
    else:
        written.save_yolo_darknet(tmp_path, label_to_id={"forged": 0})
    found: dict[str, tuple[Box, ...]] = {}
    for path in sorted(tmp_path.iterdir()):
        boxes, rejected = boxes_in(READERS[kind], path)
        assert not rejected
        found |= boxes
    expected = {n.removesuffix(".jpg") if kind == "yolo" else n: b for n, b in DRAWN.items()}
    assert found.keys() == expected.keys()
    for name, drawn in found.items():
        assert drawn == tuple(pytest.approx(box) for box in expected[name])


@pytest.mark.parametrize(
    ("module", "text", "bad"),
    [
        (module, text, bad)
        for module, text in ((voc, voc_text), (cvat, cvat_text), (labelme, labelme_text))
        for bad in BAD
        if module is not labelme or bad[0] != 5  # its corners may come in any order
    ],
)
def test_one_bad_box_does_not_lose_the_rest(
    module: ModuleType,
    text: Callable[[Sequence[Sequence[Any]]], str],
    bad: tuple[Any, ...],
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.any"
    path.write_text(text([GOOD, bad, GOOD]))
    boxes, rejected = boxes_in(module, path)
    assert boxes == {"x.jpg": (GOOD, GOOD)}
    (error,) = rejected
    assert error.reason == "bad_annotation"
    assert "[1]" in error.path


xml_files = st.one_of(
    st.lists(corners, max_size=4).map(voc_text),
    st.lists(corners, max_size=4).map(cvat_text),
    st.lists(
        st.builds(
            lambda tag, keys: f"<{tag} " + " ".join(f'{k}="{v}"' for k, v in keys.items()) + "/>",
            st.sampled_from(["box", "polygon", "mask", "ellipse", "image"]),
            st.dictionaries(
                st.sampled_from(["xtl", "ytl", "xbr", "ybr", "points", "rotation", "cx", "cy"])
                | st.sampled_from(["rx", "ry", "left", "top", "width", "height"]),
                words | st.just("1,2;3,4;5,1"),
            ),
        )
    ).map(lambda tags: cvat_text([]).replace("</image>", "".join(tags) + "</image>")),
    st.text(),
)


@fuzzed
@given(text=xml_files)
def test_fuzzed_xml(scratch: Path, text: str) -> None:
    for module in (voc, cvat):
        check(module, scratch, text.encode(errors="replace"))


@settings(max_examples=25)
@given(data=st.binary())
@pytest.mark.parametrize("kind", READERS)
def test_fuzzed_bytes(scratch: Path, kind: str, data: bytes) -> None:
    check(READERS[kind], scratch, data)
