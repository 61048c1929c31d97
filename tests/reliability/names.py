"""A13: names that want to be formulas or HTML, in every table and page."""

import csv
import io
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from boxpromptiml.io.files import csv_text
from boxpromptiml.report.gallery import make_gallery
from boxpromptiml.report.page import Report, render
from tests.helpers.commands import run
from tests.helpers.report_pages import entry, full
from tests.reliability.figures import Figure, judged
from tests.reliability.material import make_checkpoint, row, sound_images, write_rows

NAMES = (
    "=cmd|' !A0'", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1",
    "<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "</td></table><h1>x</h1>",
    "{{ 7*7 }}{% raw %}", "&lt;b&gt;<b>", "javascript:alert(1)", "<!--", "]]>", "</style><script>",
    "\u202e<u>", "a\x1b[31m", "`<i>`", "<svg/onload=alert(1)>", "<iframe src=//evil.example>",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Elements(HTMLParser):
    """Counts elements by tag and names of attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: Counter[tuple[str, ...]] = Counter()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser."""
        self.found[tag, *(name for name, _ in attrs)] += 1


def names_stay_text(work: Path) -> Figure:
    """`localize` and `check` on files with hostile names, tables and the report of such ids."""
    faults: list[str] = []
    pages: list[Counter[tuple[str, ...]]] = []
    reports: list[Counter[tuple[str, ...]]] = []
    cells = 0
    for kind in ("plain", "hostile"):
        names = NAMES if kind == "hostile" else [f"name {i:02d}" for i in range(len(NAMES))]
        root = work / kind
        said = _commands(root, names, work / "tiny.ckpt")
        faults += said
        pages.append(Elements((root / "checked" / "report.html").read_text()).found)
        reports.append(Elements(render(_report(names))).found)
        table = csv_text(("name", "dataset"), [(name, name) for name in names])
        written = (root / "localized" / "predictions.csv").read_bytes().decode()
        for text in (written, table):
            bad, count = _formulas(text)
            faults += bad
            cells += count
    for what, (plain, hostile) in (("check", pages), ("report", reports)):
        faults += [
            f"{what}: {element} {count} times more" for element, count in (hostile - plain).items()
        ]
        faults += [
            f"{what}: {element} {count} times less" for element, count in (plain - hostile).items()
        ]
    reached = (
        f"{len(NAMES)} names: {cells} cells of CSV neutral, {len(faults)} foreign nodes in 2 pages"
    )
    return judged(
        "A13", "hostile names: CSV cells neutral, HTML without foreign nodes", reached, faults
    )


def _commands(root: Path, names: tuple[str, ...] | list[str], checkpoint: Path) -> list[str]:
    folder = root / "tampered"
    for path, name in zip(sound_images(folder, len(names)), names, strict=True):
        path.rename(folder / f"{name.replace('/', '%')}{path.suffix}")
    rows = [
        row(f"gone/{name}.jpg", id=name, dataset=name, group=name, split="val") for name in names
    ]
    rows += [row(f"tampered/{path.name}", dataset="d") for path in sorted(folder.iterdir())]
    manifest = write_rows(root / "m.jsonl", rows)
    make_checkpoint(checkpoint)
    ends = (
        run(["boxpromptiml", "localize", f"--checkpoint={checkpoint}", "--overlays=false",
             "--images", str(folder), f"--out={root / 'localized'}"]),
        run(["data_prep", "check", f"--manifest={manifest}", f"--out={root / 'checked'}"]),
    )  # fmt: skip
    return [end.said[-300:] for end in ends if end.crashed or "\x1b[31m" in end.said]


def _formulas(text: str) -> tuple[list[str], int]:
    """Cells that a spreadsheet would calculate, and the number of cells."""
    cells = [cell for line in csv.reader(io.StringIO(text, newline="")) for cell in line]
    return [f"cell {cell!r}" for cell in cells if cell.startswith(_FORMULA)], len(cells)


def _report(names: tuple[str, ...] | list[str]) -> Report:
    pairs = {name: name for name in names}
    images = make_gallery([entry(name, 0.5, name) for name in names], lambda *_: ())
    return replace(full(names[7]), gallery=images, settings=pairs, versions=pairs, checksums=pairs)
