"""Datasets prepared for another project.

IMDLBenCo: folders `Tp/` and `Gt/` (and `Au/`), or a list [["Tp/6.jpg", "Gt/6.jpg"], ["Tp/8.jpg",
"Negative"], ..]. ForensicHub: a list [{"path", "mask", "label"}, ..]. WSCL: {"id": {"subset",
"path", "label", "mask"}, ..}. SCAF: `train/` and `test/` with `Image/` and `GT/`, and `train.txt`,
`test.txt` that name the images to use; scribbles are not masks.

Masks of IMDLBenCo and ForensicHub may be JPEG and are read above 127, as they do; masks of 0 | 1
need `--mask_threshold 0` there. Paths in a list are relative to its folder, or to the folder above
if they begin with its name; absolute paths of another machine are resolved from the first folder
that exists here.

A table (.csv) has the columns image, and optionally mask, label (0, 1, authentic, manipulated or
empty), split, group and kind. Without a label the mask says whether an image is manipulated.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from boxpromptiml.io.strict_json import parse_json
from boxpromptiml.records import Split
from data_prep.annotations.screen import read_table, read_text
from data_prep.importers.layout import DatasetLayout, RawItem, Tree
from data_prep.importers.raw import IMAGE

_SPLITS: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
_BENCO_THRESHOLD = 127  # IMDLBenCo's own reader counts a pixel above 127.5
_SPLIT = rf"(?:({'|'.join(_SPLITS)})/)?"
LISTS = (".json", ".csv")  # endings of a source that is a list
_NEGATIVE = ("negative", "none", "")  # in place of a mask
_ABSOLUTE = re.compile(r"/|[a-z]:/", re.IGNORECASE)
_MAX_LIST_BYTES = 64 * 2**20
_COLUMNS = ("mask", "label", "split", "group", "kind")
_LABELS = {"0": 0, "authentic": 0, "1": 1, "manipulated": 1, "": None}


class _Entry(NamedTuple):
    """What a list says of one image."""

    image: str
    mask: str | None
    label: int | None
    split: Split | None = None
    mask_threshold: int | None = _BENCO_THRESHOLD
    group: str | None = None
    kind: str | None = None


def pairs(source: Path) -> DatasetLayout:
    """The layout of a source: its folders, or the list (.json) that it is."""
    is_list = source.suffix.lower() in LISTS
    return DatasetLayout(
        name="pairs",
        layout="Tp/*, Gt/*, Au/*; {train,test}/Image/*, {train,test}/GT/*; or a list (.json, .csv)",
        polarity="white is manipulated: IMDLBenCo's above 127, others lossless 0 | 1 or 0 | 255",
        find=(lambda tree: _listed(tree, source)) if is_list else _in_folders,
        ignored=".*" if is_list else r"(?:Scribble|trainset_fg|trainset_bg|fg|bg)/.*",
    )


def _in_folders(tree: Tree) -> Iterator[RawItem]:
    files = _chosen(tree, tree.by_key(rf"{_SPLIT}(?:Tp|Image)/([^/]+{IMAGE})"))
    masks = tree.by_key(rf"{_SPLIT}Gt/([^/]+?)(?:_gt|_mask)?{IMAGE}")
    tampered: dict[str, str] = {}
    for key, image in sorted(files.items()):
        stem = key.rpartition(".")[0]
        if stem in tampered:
            tree.reject(image, "duplicate", f"has the name of {tampered[stem]}")
        else:
            tampered[stem] = image
    masked = {_split(key) for key in masks}
    for key in sorted(key for key in tampered if _split(key) not in masked):
        yield RawItem(f"Tp/{key}", tampered.pop(key), 1, split=_split(key))  # nobody drew masks
    for key, image, mask in tree.pair(tampered, masks):
        is_benco = PurePosixPath(image).parent.name.lower() == "tp"  # SCAF says Image
        threshold = _BENCO_THRESHOLD if is_benco else None
        yield RawItem(f"Tp/{key}", image, 1, mask, split=_split(key), mask_threshold=threshold)
    for key, image in tree.by_key(rf"{_SPLIT}Au/([^/]+){IMAGE}").items():
        yield RawItem(f"Au/{key}", image, 0, split=_split(key))


def _chosen(tree: Tree, files: dict[str, str]) -> dict[str, str]:
    """The images that `train.txt` and `test.txt` name; all of a split that has no such file."""
    lists = tree.by_key(rf"({'|'.join(_SPLITS)})\.txt")
    chosen = {key: image for key, image in files.items() if _split(key) not in lists}
    for split, name in lists.items():
        for line in filter(None, map(str.strip, tree.source.read_text(name).split("\n"))):
            key = f"{split}/{line}"
            if key in files:
                chosen[key] = files[key]
            else:
                tree.reject(key, "missing", f"{name} names an image that is not there")
    for key in sorted(files.keys() - chosen.keys()):
        tree.reject(files[key], "not_listed", f"is not named in {_split(key)}.txt")
    return chosen


def _split(key: str) -> Split | None:
    return _SPLITS.get(key.partition("/")[0].lower()) if "/" in key else None


def _listed(tree: Tree, path: Path) -> Iterator[RawItem]:
    """Yield the items of a list; an entry of an unknown kind is rejected."""
    for key, entry in _entries(path):
        try:
            parsed = _parse(entry, path.suffix.lower() == ".csv")
        except (KeyError, TypeError, ValueError):
            message = "is no entry of a list of IMDLBenCo, ForensicHub or WSCL"
            tree.reject(f"{path.name}#{key}", "bad_row", message)
            continue
        image, mask = parsed.image, parsed.mask
        found = _look_up(tree, path.parent, image)
        found_mask = _look_up(tree, path.parent, mask) if mask else None
        if found is None:
            message = f"names {image!r}, which is not below the list's folder"
            tree.reject(f"{path.name}#{key}", "missing", message)
        elif mask and found_mask is None:
            tree.reject(found, "no_mask", f"its mask {mask!r} is not below the list's folder")
        elif found_mask == found:
            message = "is named as its own mask"
            tree.reject(f"{path.name}#{key}", "bad_row", message)
        else:
            name = str(PurePosixPath(found).with_suffix(""))
            _, _, label, split, threshold, group, kind = parsed
            yield RawItem(name, found, label, found_mask, kind, group, split, threshold)


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix.lower() == ".csv":
        for line, row in read_table(path, _MAX_LIST_BYTES, ["image"], _COLUMNS, {}):
            yield str(line), row
        return
    content = parse_json(read_text(path, _MAX_LIST_BYTES), str(path))
    if isinstance(content, dict):
        yield from content.items()
    elif isinstance(content, list):
        yield from ((str(number), entry) for number, entry in enumerate(content))


def _parse(entry: Any, is_table: bool) -> _Entry:
    """What an entry of a list says."""
    if is_table:
        mask, split = entry.get("mask") or None, entry.get("split")
        return _Entry(
            _text(entry["image"]), mask and _text(mask), _LABELS[entry.get("label", "").lower()],
            _SPLITS[split] if split else None, None, entry.get("group") or None,
            entry.get("kind") or None,
        )  # fmt: skip
    if isinstance(entry, list):
        image, mask = entry
        if mask is None or str(mask).lower() in _NEGATIVE:
            return _Entry(_text(image), None, 0)
        return _Entry(_text(image), _text(mask), 1)
    label, mask = {0: 0, 1: 1}[entry["label"]], entry.get("mask")
    is_wscl = "subset" in entry
    split = _SPLITS[entry["subset"]] if is_wscl else None
    threshold = None if is_wscl else _BENCO_THRESHOLD
    return _Entry(
        _text(entry["path"]), _text(mask) if label and mask else None, label, split, threshold
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("not a path")
    return value.replace("\\", "/")


def _look_up(tree: Tree, folder: Path, named: str) -> str | None:
    """The file that a list in `folder` names, relative to it or to the folder above."""
    folder = folder.resolve()
    for base in (folder, folder.parent):
        relative = os.path.relpath(base / named, folder)
        if (found := tree.look_up(relative)) is not None:
            return found
    if not _ABSOLUTE.match(named):
        return None
    parts = [part for part in named.split("/") if part]
    ends = ("/".join(parts[start:]) for start in range(1, len(parts) - 1))
    return next((found for end in ends if (found := tree.look_up(end))), None)
