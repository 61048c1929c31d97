from pathlib import Path

import pytest

from boxpromptiml.errors import UserError
from data_prep.annotations import Annotations, table


def _read(tmp_path: Path, text: str) -> Annotations:
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    return table.read(path)


def test_rows_of_an_image_are_gathered(tmp_path: Path) -> None:
    rows = (
        "image,x0,y0,x1,y1,label,width,height\n"
        "a.jpg,1,2,3,4.5,splice,48,32\n"
        "b.jpg,,,,,,,\n"
        '"a.jpg",5,6,7,8,"copy, move",,\n'
    )
    first, second = _read(tmp_path, rows).images
    assert [(shape.label, shape.corners) for shape in first.shapes] == [
        ("splice", (1, 2, 3, 4.5)),
        ("copy, move", (5, 6, 7, 8)),
    ]
    assert (first.size, second.size) == ((32, 48), None)
    assert second.annotated
    assert not second.shapes


def test_a_bad_cell_leaves_the_boxes_of_its_image_unknown(tmp_path: Path) -> None:
    rows = "image,x0,y0,x1,y1\na.jpg,1,2,3,nan\na.jpg,1,2,,4\n,1,2,3,4\nb.jpg,1,2,3,4\n"
    found = _read(tmp_path, rows)
    assert [len(image.rejected) for image in found.images] == [2, 0]
    assert [row.path.rpartition(":")[2] for row in found.rejected] == ["4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: no column 'image'"),
        ("image,x0,y0,x1\n", "line 1: no column 'y1'"),
        ("image,x0,y0,x1,y1,mask\n", "line 1: unknown column 'mask'"),
        ("image,filename,x0,y0,x1,y1\n", "line 1: a column is there twice"),
        ("image,x0,y0,x1,y1\na.jpg,1,2,3\n", "line 2: 4 cells, but 5 columns"),
        ('image,x0,y0,x1,y1\na.jpg,1,2,3,"4\n', "line 2: unexpected end of data"),
    ],
)
def test_a_table_that_is_none_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        _read(tmp_path, text)
