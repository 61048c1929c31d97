"""NIST Nimble 2016: the table says which probe belongs to which mask, and black is manipulated.

The task `manipulation` is the union of `splice` and `removal`, so only its table is read.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from boxpromptiml.errors import UserError
from boxpromptiml.io.images import read_mask
from boxpromptiml.records import MaskArray
from data_prep.importers.layout import DatasetLayout, RawItem, Tree

_TABLE = r"(reference)/manipulation/NC2016-manipulation-ref\.csv"
_COLUMNS = ("IsTarget", "ProbeFileName", "ProbeMaskFileName")
_KINDS = {
    "IsManipulationTypeSplice": "splice",
    "IsManipulationTypeCopyClone": "copymove",
    "IsManipulationTypeRemoval": "removal",
}


def read_inverted(path: Path) -> MaskArray:
    """A mask whose black pixels, up to 127, are the manipulated ones.

    Raises:
        RejectedInput: If the mask cannot be read, or is not clearly binary.
    """
    return ~read_mask(path, 127)


def _find(tree: Tree) -> Iterator[RawItem]:
    for table in tree.by_key(_TABLE).values():
        base = table[: -len("reference/manipulation/NC2016-manipulation-ref.csv")]
        for row in _rows(tree, table):
            item = _item(tree, base, row)
            if item is not None:
                yield item


def _rows(tree: Tree, table: str) -> Iterator[Mapping[str, str]]:
    """Rows of a table that is divided by commas (Test0613) or bars (Test0601)."""
    text = tree.source.read_text(table)
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter="|" if "|" in head else ",")
    try:
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{tree.source.shown(table)}: has no column {', '.join(missing)}")
        for row in reader:
            yield {key: value or "" for key, value in row.items() if isinstance(key, str)}
    except csv.Error as error:
        raise UserError(f"{tree.source.shown(table)}: is no table: {error}") from error


def _item(tree: Tree, base: str, row: Mapping[str, str]) -> RawItem | None:
    """The item of a row; None if its files are not there, which is then recorded."""
    probe, target = row["ProbeFileName"], row["IsTarget"]
    image = tree.look_up(base + probe)
    if image is None:
        tree.reject(base + probe, "missing", "the table names an image that is not there")
        return None
    if target not in ("Y", "N"):
        tree.reject(image, "bad_row", f"the table says IsTarget {target!r}, neither Y nor N")
        return None
    group = f"nist16/{row.get('BaseFileName') or probe}"
    key = str(PurePosixPath(probe).with_suffix(""))
    if target == "N":
        return RawItem(key, image, 0, group=group)
    mask = _mask(tree, base, row["ProbeMaskFileName"])
    if mask is None:
        tree.reject(image, "no_mask", f"its mask {row['ProbeMaskFileName']!r} is not there")
        return None
    kinds = [kind for column, kind in _KINDS.items() if row.get(column) == "Y"]
    return RawItem(key, image, 1, mask, kinds[0] if len(kinds) == 1 else None, group)


def _mask(tree: Tree, base: str, named: str) -> str | None:
    """The mask of a row; releases differ in calling a folder `remove` or `removal`."""
    found = tree.look_up(base + named)
    if found is None:
        other = {"/remove/": "/removal/", "/removal/": "/remove/"}
        for part, instead in other.items():
            if part in named and (found := tree.look_up(base + named.replace(part, instead))):
                tree.correct(f"read {named} from {instead.strip('/')}")
                break
    return found


NIST16 = DatasetLayout(
    name="nist16",
    layout="reference/manipulation/NC2016-manipulation-ref.csv, and the files it names",
    polarity="converted: black, up to 127, is manipulated",
    find=_find,
    expected={"manipulated": 564},
    convert=read_inverted,
    ignored=r"(?:world|reference/(?:splice|remove|removal|manipulation))/.*",
)
