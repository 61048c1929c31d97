import json
import os
import time

import pytest
from globox import Annotation, AnnotationSet, BoundingBox
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boxpromptiml.errors import UserError
from boxpromptiml.records import Box
from data_prep.annotations import coco, cvat, labelme, voc, yolo
from data_prep.annotations.screen import boxes_of, image_name

SIZE = (80, 120)  # (H, W)
READERS = {"coco": coco, "voc": voc, "yolo": yolo, "cvat": cvat, "labelme": labelme}
DRAWN = {
    "a b.jpg": [(1.25, 2.5, 30.75, 40.125), (0, 0, 120, 80)],
    "ünï 照片.jpg": [(99.9, 0.1, 100.1, 79.9)],
    "empty.jpg": [],
}


def boxes_in(module, path, size=SIZE, labels=()):
    found = module.read(path)
    answers = {entry.name: boxes_of(entry, size, labels) for entry in found.entries}
    bad = [error for _, errors in answers.values() for error in errors] + found.rejected
    return {name: boxes for name, (boxes, _) in answers.items()}, bad


@pytest.fixture
def written():
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
def test_fractions_and_empty_images_survive_what_globox_writes(kind, written, tmp_path):
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
    found = {}
    for path in sorted(tmp_path.iterdir()):
        boxes, rejected = boxes_in(READERS[kind], path)
        assert not rejected
        found |= boxes
    expected = {n.removesuffix(".jpg") if kind == "yolo" else n: b for n, b in DRAWN.items()}
    assert found.keys() == expected.keys()
    for name, boxes in found.items():
        assert boxes == tuple(pytest.approx(box) for box in expected[name])


GOOD = (2, 2, 4, 4)
BAD = [
    (1, 1, 1, 5),  # no width
    (5, 1, 1, 5),  # inverted
    ("nan", 1, 3, 5),
    ("inf", 1, 3, 5),
    ("1e999", 1, 3, 5),
    ("", 1, 3, 5),
    ("x", 1, 3, 5),
    (-3, 1, 3, 5),  # leaves the image by more than 2 pixels
    (1, 1, 123, 5),
    (120.5, 1, 121, 5),  # outside, though by less
]


def _voc(corners):
    objects = "".join(
        f"<object><name>f</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in corners
    )
    return (
        "<annotation><filename>x.jpg</filename><size><width>120</width><height>80</height></size>"
        f"{objects}</annotation>"
    )


def _cvat(corners):
    boxes = "".join(
        f'<box label="f" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}"/>' for a, b, c, d in corners
    )
    return f'<annotations><image name="x.jpg" width="120" height="80">{boxes}</image></annotations>'


def _labelme(corners):
    shapes = [
        {"label": "f", "shape_type": "polygon", "points": [[a, b], [c, d]]}
        for a, b, c, d in corners
    ]
    image = {"imagePath": "x.jpg", "imageWidth": 120, "imageHeight": 80}
    return json.dumps(image | {"shapes": shapes})


@pytest.mark.parametrize(
    ("module", "text", "bad"),
    [
        (module, text, bad)
        for module, text in ((voc, _voc), (cvat, _cvat), (labelme, _labelme))
        for bad in BAD
        if module is not labelme or bad[0] != 5  # its corners may come in any order
    ],
)
def test_one_bad_box_does_not_lose_the_rest(module, text, bad, tmp_path):
    path = tmp_path / "x.any"
    path.write_text(text([GOOD, bad, GOOD]))
    boxes, rejected = boxes_in(module, path)
    assert boxes == {"x.jpg": (GOOD, GOOD)}
    (error,) = rejected
    assert error.reason == "bad_annotation"
    assert "[1]" in error.path


@pytest.mark.parametrize(
    "line", ["0 .5 .5 .2", "0 .5 .5 -.1 .1", "0 nan .5 .1 .1", "0 a b c d", "0", "0 1.2 .5 .1 .1"]
)
def test_one_bad_line_of_yolo_does_not_lose_the_rest(line, tmp_path):
    (tmp_path / "x.txt").write_text(f"0 0.5 0.5 0.5 0.5\n\n{line}\n1 0.5 0.5 0.5 0.5 0.9\n")
    boxes, rejected = boxes_in(yolo, tmp_path / "x.txt")
    assert boxes == {"x": ((30, 20, 90, 60),) * 2}
    assert [error.path for error in rejected] == [f"{tmp_path / 'x.txt'}#3"]


def test_yolo_polygons_and_lists_of_names(tmp_path):
    (tmp_path / "x.txt").write_text("0 0.1 0.1 0.5 0.2 0.3 0.9\n")
    assert boxes_in(yolo, tmp_path / "x.txt")[0] == {"x": (pytest.approx((12, 8, 60, 72)),)}
    (tmp_path / "classes.txt").write_text("forged\nauthentic\n")
    (tmp_path / "train.txt").write_text("images/1.jpg\n")
    (tmp_path / "test.txt").write_text("0 0.5 0.5 0.5 0.5\n")  # an image of this name
    assert boxes_in(yolo, tmp_path / "classes.txt") == ({}, [])
    assert boxes_in(yolo, tmp_path / "train.txt") == ({}, [])
    assert boxes_in(yolo, tmp_path / "test.txt")[0].keys() == {"test"}


def test_shapes_of_cvat(tmp_path):
    shapes = """
        <box label="f" xtl="40" ytl="30" xbr="60" ybr="40" rotation="90"/>
        <polygon label="f" points="1.5,2;7,3;4,9.25"/>
        <mask label="f" rle="1, 2" left="3" top="4" width="10" height="5"/>
        <ellipse label="f" cx="50" cy="40" rx="20" ry="10" rotation="90"/>
        <tag label="f"/><points label="f" points="1,2"/><polygon label="f"/>"""
    (tmp_path / "a.xml").write_text(
        f'<annotations><image name="x" width="120" height="80">{shapes}</image></annotations>'
    )
    boxes, rejected = boxes_in(cvat, tmp_path / "a.xml")
    expected = [(45, 25, 55, 45), (1.5, 2, 7, 9.25), (3, 4, 13, 9), (40, 20, 60, 60)]
    assert boxes["x"] == tuple(pytest.approx(box) for box in expected)
    assert [error.path.split("/")[-1] for error in rejected] == ["points[5]", "polygon[6]"]


def test_shapes_of_labelme(tmp_path):
    shapes = [
        {"label": "f", "points": [[5, 5], [1, 2], [3, 9]]},
        {"label": "f", "shape_type": "circle", "points": [[50, 40], [53, 44]]},
        {"label": "f", "shape_type": "point", "points": [[1, 1]]},
        {"label": "f", "shape_type": "polygon", "points": []},
        {"shape_type": "polygon", "points": [[1, 1], [2, 2]]},
        3,
    ]
    content = {"imagePath": "..\\p\\x.jpg", "imageWidth": 120, "imageHeight": 80, "shapes": shapes}
    (tmp_path / "x.json").write_text(json.dumps(content), encoding="utf-8-sig")
    boxes, rejected = boxes_in(labelme, tmp_path / "x.json")
    assert boxes == {"p/x.jpg": ((1, 2, 5, 9), (45, 35, 55, 45))}
    assert len(rejected) == 4


def test_boxes_come_from_the_segmentation_where_there_is_no_bbox(tmp_path):
    segmentations = [
        {"segmentation": [[1.5, 2, 7, 3, 4, 9.25], [0, 20, 1, 21, 0, 22]]},
        {"segmentation": {"size": list(SIZE), "counts": [5, 10, 80 * 120 - 15]}, "bbox": []},
        {"segmentation": [[1, 2, 3]]},
        {"segmentation": {"size": [9, 9], "counts": [0, 81]}},
        {"segmentation": []},
        {"segmentation": [], "bbox": "1234"},
        {},
    ]
    content = {
        "images": [{"id": "a", "file_name": "x.jpg", "width": 120, "height": 80}],
        "annotations": [{"image_id": "a"} | row for row in segmentations],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    boxes, rejected = boxes_in(coco, tmp_path / "x.json")
    assert boxes == {"x.jpg": ((0, 2, 7, 22), (0, 5, 1, 15))}
    assert len(rejected) == 5


def test_labels_choose(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "x.jpg", "width": 120, "height": 80}],
        "annotations": [
            {"image_id": 1, "category_id": number, "bbox": [number, 1, 5, 5]}
            for number in (1, 2, 3)
        ],
        "categories": [{"id": 1, "name": "forged"}, {"id": 2, "name": "sky"}, {"name": 3}, 4],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert boxes_in(coco, tmp_path / "x.json", labels=["sky"])[0] == {"x.jpg": ((2, 1, 7, 6),)}
    assert len(boxes_in(coco, tmp_path / "x.json")[0]["x.jpg"]) == 3


BOMB = (
    '<!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(
        f'<!ENTITY {"abcdefghij"[i + 1]} "{("&" + "abcdefghij"[i] + ";") * 10}">' for i in range(9)
    )
    + "]><annotation>&j;</annotation>"
)
HOSTILE = {
    "billion laughs": BOMB,
    "external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    "external DTD": '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><annotation/>',
    "nesting": "<annotation>" + "<a>" * 50_000 + "</a>" * 50_000 + "</annotation>",
    "not closed": "<annotation>" + "<a>" * 1000,
    "encoding": '<?xml version="1.0" encoding="rot13"?><annotation/>',
    "no XML": "\x00\x01",
    "empty": "",
    "other root": "<html/>",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("module", [voc, cvat])
def test_hostile_xml_is_refused_at_once(module, name, tmp_path):
    path = tmp_path / "x.xml"
    path.write_text(
        HOSTILE[name].replace("annotation>", "annotations>" if module is cvat else "annotation>")
    )
    start = time.process_time()
    if module is cvat and name == "nesting":
        assert module.read(path).entries == []
    else:
        with pytest.raises(UserError, match=r"x\.xml") as caught:
            module.read(path)
        assert ("DTDForbidden" in str(caught.value)) == ("DOCTYPE" in HOSTILE[name])
    assert time.process_time() - start < 5


@pytest.mark.parametrize("kind", READERS)
def test_files_that_are_none(kind, tmp_path):
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
    ],
)
@pytest.mark.parametrize("module", [coco, labelme])
def test_hostile_json_is_refused(module, text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json"):
        module.read(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("key", "broken", "count"),
    [
        ("images", {}, 100_001),
        ("annotations", {}, 100_001),
        ("annotations", {"image_id": 1}, 200_001),  # the image's own list is full at half of it
    ],
)
def test_a_file_that_is_broken_throughout_is_given_up(key, broken, count, tmp_path):
    """Each rejection takes memory."""
    image = {"id": 1, "file_name": "x.jpg", "width": 120, "height": 80}
    content = {"images": [image], "annotations": [], key: [broken] * count}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"x\.json#.*100000 entries are broken, .*x\.json"):
        coco.read(tmp_path / "x.json")


@pytest.mark.parametrize("side", [pytest.param(10**400, id="huge"), -120, 0, None, True, "x", []])
def test_sizes_that_are_none(side, tmp_path):
    content = {"imagePath": "x.jpg", "imageWidth": side, "imageHeight": 80, "shapes": []}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="not LabelMe"):
        labelme.read(tmp_path / "x.json")
    row = {"id": 1, "file_name": "x.jpg", "width": side, "height": 80}
    (tmp_path / "x.json").write_text(json.dumps({"images": [row], "annotations": []}))
    assert not coco.read(tmp_path / "x.json").entries


def test_cvat_for_video_says_what_to_export(tmp_path):
    (tmp_path / "x.xml").write_text("<annotations><track id='0'/></annotations>")
    with pytest.raises(UserError, match="CVAT for images"):
        cvat.read(tmp_path / "x.xml")


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
def test_names(name, location, expected):
    assert image_name(name, location) == expected


# Fuzzing: any content gives boxes inside the image, rejections, or a UserError.

KEYS = [
    *["images", "annotations", "categories", "id", "file_name", "width", "height", "image_id"],
    *["category_id", "bbox", "segmentation", "size", "counts", "attributes", "name", "annotated"],
    *["imagePath", "imageWidth", "imageHeight", "shapes", "label", "points", "shape_type"],
]
scalars = st.one_of(
    st.sampled_from([0, 1, 2, 40, 80, 120, -1, 10**400, 1e308, True, None, "1", "nan", "circle"]),
    st.floats(),
    st.text(max_size=3),
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=25,
)
coco_files = st.fixed_dictionaries(
    {
        "images": st.lists(
            st.fixed_dictionaries(dict.fromkeys(("id", "file_name", "width", "height"), scalars))
            | st.just({"id": 1, "file_name": "x", "width": 120, "height": 80})
            | trees,
            max_size=3,
        ),
        "annotations": st.lists(
            st.fixed_dictionaries(
                {"image_id": st.just(1) | scalars},
                optional={"bbox": trees | st.lists(scalars, min_size=4, max_size=4)}
                | dict.fromkeys(("segmentation", "category_id", "attributes"), trees),
            )
            | trees,
            max_size=5,
        ),
    },
    optional={"categories": trees},
)
labelme_files = st.fixed_dictionaries(
    {"imagePath": st.just("x") | trees, "imageWidth": scalars, "imageHeight": scalars}
    | {
        "shapes": st.lists(
            st.fixed_dictionaries(
                {"label": scalars, "points": st.lists(st.lists(scalars, min_size=2, max_size=2))},
                optional={"shape_type": scalars},
            )
            | trees,
            max_size=4,
        )
    },
)
words = scalars.map(str).map(lambda s: "".join(c for c in s if c.isprintable() and c not in '<>&"'))
corners = st.tuples(words, words, words, words)
xml_files = st.one_of(
    st.lists(corners, max_size=4).map(_voc),
    st.lists(corners, max_size=4).map(_cvat),
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
    ).map(lambda tags: _cvat([]).replace("</image>", "".join(tags) + "</image>")),
    st.text(),
)
yolo_files = st.lists(st.lists(words, max_size=9).map(" ".join), max_size=5).map("\n".join)
fuzzed = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def _check(module, path, data):
    path.write_bytes(data)
    try:
        boxes, _ = boxes_in(module, path)
    except UserError:
        return
    for box in (box for found in boxes.values() for box in found):
        assert isinstance(box, Box)
        assert 0 <= box.x0 < box.x1 <= SIZE[1]
        assert 0 <= box.y0 < box.y1 <= SIZE[0]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "x.any"


@fuzzed
@given(tree=coco_files | trees)
def test_fuzzed_coco(scratch, tree):
    _check(coco, scratch, json.dumps(tree, default=str).encode())


@fuzzed
@given(tree=labelme_files | trees)
def test_fuzzed_labelme(scratch, tree):
    _check(labelme, scratch, json.dumps(tree, default=str).encode())


@fuzzed
@given(text=xml_files)
def test_fuzzed_xml(scratch, text):
    for module in (voc, cvat):
        _check(module, scratch, text.encode(errors="replace"))


@fuzzed
@given(text=yolo_files)
def test_fuzzed_yolo(scratch, text):
    _check(yolo, scratch, text.encode(errors="replace"))


@settings(max_examples=25)
@given(data=st.binary())
@pytest.mark.parametrize("kind", READERS)
def test_fuzzed_bytes(scratch, kind, data):
    _check(READERS[kind], scratch, data)


@pytest.mark.parametrize("same", ["id", "file_name"])
def test_coco_images_that_share_an_id_or_a_name_are_all_rejected(same, tmp_path):
    images = [
        {"id": number, "file_name": f"{number}.jpg", "width": SIZE[1], "height": SIZE[0]}
        for number in range(3)
    ]
    images[1][same] = images[0][same]
    boxes = [{"image_id": number, "bbox": [1, 2, 3, 4]} for number in range(3)]
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes}))
    found, rejected = boxes_in(coco, path)
    assert found == {"2.jpg": (Box(1, 2, 4, 6),)}
    places = [error.path.partition("#")[2] for error in rejected]
    assert places == ["images[0]", "images[1]", "annotations[0]", "annotations[1]"]
