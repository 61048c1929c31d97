from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxpromptiml.data import leaks
from boxpromptiml.data.leaks import refuse_shared_images
from boxpromptiml.errors import UserError
from boxpromptiml.manifests import sources
from boxpromptiml.manifests.manifest import Header, write_manifest
from boxpromptiml.manifests.sources import Source, Sources, of_split, read_sources
from boxpromptiml.records import Sample

SAMPLE = Sample("a", "d", "train", "g", "x.jpg", (5, 6), 0, None)


def _manifest(path: Path, names: Sequence[str], **changes: Any) -> Path:
    rows = [replace(SAMPLE, id=name, group=f"group {name}", **changes) for name in names]
    return write_manifest(path, Header(), rows).path


@pytest.fixture
def three(tmp_path: Path) -> Sources:
    names = ("abc", "", "de")
    return Sources(
        read_sources([_manifest(tmp_path / f"{n}.jsonl", part)]).manifests[0]
        if part
        else write_manifest(tmp_path / "empty.jsonl", Header(), [])
        for n, part in enumerate(names)
    )


def _names(some: Sequence[Source]) -> str:
    return "".join(source.sample.id for source in some)


def test_sources_are_one_sequence_over_manifests(three: Sources, tmp_path: Path) -> None:
    assert len(three) == 5
    assert _names(three) == _names([three[i] for i in range(5)]) == "abcde"
    assert _names([three[i] for i in (-1, -5)]) == "ea"
    assert _names(three[1:4]) == "bcd"
    assert [source.manifest.path.name[0] for source in three] == list("00022")
    with pytest.raises(IndexError):
        three[5]
    assert _names(deepcopy(three)) == "abcde"


def test_what_is_chosen_keeps_the_order(three: Sources) -> None:
    assert _names(three.where(np.array([0, 1, 0, 1, 1], bool))) == "bde"
    assert _names(three.where(s.sample.id in "ec" for s in three)) == "ce"
    assert not three.where([False] * 5)
    with pytest.raises(UserError, match='"split": "val"'):
        of_split(three, "val", "x")


def test_ids_in_two_manifests_are_refused_within_a_split_only(tmp_path: Path) -> None:
    first = _manifest(tmp_path / "1.jsonl", "abc")
    second = _manifest(tmp_path / "2.jsonl", "xcb", split="val")
    assert _names(read_sources([first, second], "train")) == "abc"
    with pytest.raises(UserError, match="2 ids are in more than one manifest, for example 'b'"):
        read_sources([first, second])


@pytest.fixture
def one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text has the same hash: only the exact comparison can tell them apart."""
    for module in (sources, leaks):
        monkeypatch.setattr(module, "hash", lambda _: 7, raising=False)


def test_equal_hashes_are_not_yet_duplicates(tmp_path: Path, one_hash: None) -> None:
    first = _manifest(tmp_path / "1.jsonl", "abc")
    second = _manifest(tmp_path / "2.jsonl", "xyz")
    assert _names(read_sources([first, second])) == "abcxyz"
    refuse_shared_images(read_sources([first]), {"test": read_sources([second])})
    third = _manifest(tmp_path / "3.jsonl", "wa")
    with pytest.raises(UserError, match="1 ids are in more than one manifest, for example 'a'"):
        read_sources([first, third])


@pytest.mark.parametrize("same", ["group", "file", "both"])
def test_leaks_are_named_by_one_image_of_each_side(tmp_path: Path, same: str) -> None:
    ours = [replace(SAMPLE, id=f"t{n}", group=f"t{n}", image_sha256=f"{n:064}") for n in range(4)]
    theirs = [replace(SAMPLE, id=f"v{n}", group=f"v{n}", image_sha256="f" * 64) for n in range(3)]
    if same in ("group", "both"):
        theirs[1] = replace(theirs[1], group="t2")
    if same in ("file", "both"):
        theirs[1] = replace(theirs[1], image_sha256=f"{2:064}")
    write_manifest(tmp_path / "t.jsonl", Header(), ours)
    write_manifest(tmp_path / "v.jsonl", Header(), theirs)
    train, val = (read_sources([tmp_path / f"{name}.jsonl"]) for name in "tv")
    count = 2 if same == "both" else 1
    with pytest.raises(UserError, match=f"^{count} images.*training and validation.*'t2' and 'v1'"):
        refuse_shared_images(train, {"validation": val})
    refuse_shared_images(train, {"validation": val[:1] + val[2:]})


def test_an_image_without_a_file_hash_shares_none(tmp_path: Path) -> None:
    train = read_sources([_manifest(tmp_path / "t.jsonl", "ab")])
    val = read_sources([_manifest(tmp_path / "v.jsonl", "cd")])
    refuse_shared_images(train, {"validation": val})
