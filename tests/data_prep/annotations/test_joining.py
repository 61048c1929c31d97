import time
from collections.abc import Sequence

import pytest

from boxpromptiml.records import Sample
from data_prep.annotations import AnnotatedImage
from data_prep.annotations.joining import JoinBy, base_names, join_images


def joined(
    images: Sequence[str], names: Sequence[str], with_ending: bool = True, by: JoinBy = "path"
) -> tuple[dict[str, str], list[str]]:
    """Name of the annotation by image, and the reasons of the rejections."""
    samples = [Sample(name, "d", "train", name, name, (8, 9), 1, None) for name in images]
    annotated = [AnnotatedImage(f"f#{name:.99}", name, None, [], []) for name in names]
    found, rejected = join_images(samples, annotated, with_ending, by)
    return {key: one.name for key, one in found.items()}, [error.reason for error in rejected]


def test_one_path_must_end_the_other() -> None:
    images = ["t/x.jpg", "t/y.jpg", "z.jpg"]
    found, reasons = joined(images, ["x.jpg", "my/photos/t/y.jpg", "other/z.jpg", "au/x.jpg"])
    assert found == {"t/x.jpg": "x.jpg", "t/y.jpg": "my/photos/t/y.jpg", "z.jpg": "other/z.jpg"}
    assert reasons == ["no_image"]


def test_the_very_path_goes_before_one_that_ends_alike() -> None:
    found, reasons = joined(["x.jpg", "a/x.jpg", "b/x.jpg"], ["x.jpg"])
    assert found == {"x.jpg": "x.jpg"}
    assert joined(["a/x.jpg", "b/x.jpg"], ["x.jpg"])[1] == ["ambiguous"]
    assert reasons == []


@pytest.mark.parametrize(
    "name",
    [
        "images/x y.jpg",
        "/data/upload/1/0a1b2c3d-x%20y.jpg",
        "0a1b2c3d-x y.jpg",
        "data/x y.jpg",
        "C:/Users/someone/x y.jpg",
        "obj_train_data/x y",
        "x y.jpg",
        "train/labels/x y_jpg.rf.0123456789abcdef0123456789abcdef",
        "train/x y_jpg.rf.AbCd0123456789abcdef012345678901.jpg",
    ],
)
def test_bare_names_join_as_tools_write_them(name: str) -> None:
    found, reasons = joined(["tampered/x y.jpg", "tampered/y.jpg"], [name], by="name")
    assert found == {"tampered/x y.jpg": name}
    assert reasons == []


def test_names_are_found_as_label_studio_stores_them() -> None:
    images = ["t/my photo (1).jpg", "t/b.jpg"]
    found, reasons = joined(images, ["data/upload/1/0a1b2c3d-my_photo_1.jpg"], by="name")
    assert found == {images[0]: "data/upload/1/0a1b2c3d-my_photo_1.jpg"}
    assert reasons == []
    images.append("t/my_photo_1.jpg")
    assert joined(images, ["my_photo_1.jpg"], by="name")[1] == []
    assert joined(images, ["u/my_photo_1.jpg"], by="name")[1] == ["ambiguous"]


def test_names_without_an_ending_may_have_dots() -> None:
    images = ["t/a.jpg", "t/b.c.jpg"]
    assert joined(images, ["u/a", "u/b.c"], by="name")[0] == {
        "t/a.jpg": "u/a",
        "t/b.c.jpg": "u/b.c",
    }
    assert joined(images, ["labels/a.jpg", "labels/b.c"], with_ending=False, by="name")[1] == []


def test_two_candidates_of_a_name_are_refused() -> None:
    found, reasons = joined(["t/x.jpg", "a/x.jpg"], ["photos/x.jpg"], by="name")
    assert (found, reasons) == ({}, ["ambiguous"])
    found, reasons = joined(["t/x.jpg"], ["photos/x.jpg", "0a1b2c3d-x.jpg"], by="name")
    assert (found, reasons) == ({}, ["duplicate", "duplicate"])
    assert joined(["t/x.jpg", "t/x.png"], ["u/x"], by="name")[1] == ["ambiguous"]


def test_a_name_is_taken_as_it_is_before_anything_is_taken_away() -> None:
    images = ["t/0a1b2c3d-x.jpg", "t/x.jpg"]
    assert joined(images, ["u/0a1b2c3d-x.jpg"], by="name")[0] == {images[0]: "u/0a1b2c3d-x.jpg"}
    assert base_names("a/x.jpg") == ["x.jpg"]


def test_equal_bare_names_cost_no_more_than_others() -> None:
    """Compared with each other, 16,000 of them took minutes."""
    images = [f"{number}/x.jpg" for number in range(16_000)]
    start = time.process_time()
    found, reasons = joined(images, [*images, "x.jpg"])
    assert time.process_time() - start < 5
    assert len(found) == 16_000
    assert reasons == ["ambiguous"]
