"""Run the campaign and write its table; see the package's docstring."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.reliability.annotating import nothing_annotated_is_lost
from tests.reliability.bombs import bombs_are_cheap
from tests.reliability.disks import survives_full_disks
from tests.reliability.escapes import nothing_escapes
from tests.reliability.figures import Figure
from tests.reliability.fuzzing import parsers_hold
from tests.reliability.growth import nothing_leaks
from tests.reliability.kills import survives_kills, workers_agree
from tests.reliability.names import names_stay_text
from tests.reliability.rot import every_flipped_bit_is_found
from tests.reliability.survival import survives_bad_input

_BEGIN, _END = "<!-- campaign: begin -->", "<!-- campaign: end -->"
_HEAD = "| | Demanded | Reached | Met |\n|---|---|---|---|\n"

Measure = Callable[[Path], Figure]

QUICK: dict[str, Measure] = {
    "A1": lambda work: survives_bad_input(work, good=12, times=1),
    "A2": lambda work: survives_kills(work, images=8, inside=4, timed=1),
    "A3": lambda work: workers_agree(work, images=12),
    "A4": lambda work: survives_full_disks(work, images=8, sizes=(36,), writes=(0, 5)),
    "A5": lambda work: parsers_hold(cases=60, mutants_of_pictures=100),
    "A7": nothing_escapes,
    "A8": lambda work: nothing_leaks(work, first=50, last=200, most=1.5),  # 10 kB an image
    "A12": lambda work: every_flipped_bit_is_found(work, images=120, flipped=100),
    "A13": names_stay_text,
    "A15": bombs_are_cheap,
    "A16": lambda work: nothing_annotated_is_lost(work, writes=(4,), edited=100),
}
LONG: dict[str, Measure] = QUICK | {
    "A1": lambda work: survives_bad_input(work, good=300, times=4),
    "A2": lambda work: survives_kills(work, images=12, inside=12, timed=8),
    "A3": lambda work: workers_agree(work, images=60),
    "A4": lambda work: survives_full_disks(work, 12, (16, 28, 40, 60, 80), (0, 1, 8, 15, 24)),
    "A5": lambda work: parsers_hold(cases=10_000, mutants_of_pictures=20_000),
    "A8": lambda work: nothing_leaks(work, first=500, last=5000, most=20),
    "A12": lambda work: every_flipped_bit_is_found(work, images=300, flipped=100),
    "A16": lambda work: nothing_annotated_is_lost(work, writes=range(0, 18, 3), edited=3000),
}
# Measured elsewhere; the rows stand in the table so that nobody takes the list for whole.
ELSEWHERE = {
    "A6": (
        "code in weights and configurations: no canary fires",
        "tests/cli/test_import_policy.py",
    ),
    "A9": ("interrupted training: bit-identical after a resume", "tests/tasks/test_resume.py"),
    "A10": ("the newest complete checkpoint always loads", "tests/tasks/test_callbacks.py"),
    "A11": ("the suite passes without a network", "tests/offline"),
    "A14": ("pip-audit without unexplained findings, hash-pinned lock", "docs/supply_chain.md"),
}  # fmt: skip


def main(words: list[str] | None = None) -> int:
    """Run what is asked for; 1 if a promise is not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the numbers of the promise")
    parser.add_argument("--only", nargs="+", choices=list(QUICK), default=list(QUICK))
    parser.add_argument("--write", type=Path, help="put the rows into the table of this page")
    options = parser.parse_args(words)
    form = LONG if options.long else QUICK
    rows: dict[str, str] = {}
    kept = True
    for number in options.only:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"campaign-{number}-") as folder:
            figure = form[number](Path(folder))
        rows[number] = _row(figure, "long" if options.long else "quick", time.monotonic() - began)
        print(rows[number], *(f"    {fault}" for fault in figure.faults), sep="\n", flush=True)
        kept = kept and figure.met is not False
        if options.write:
            options.write.write_text(with_rows(options.write.read_text("utf-8"), rows), "utf-8")
    return 0 if kept else 1


def _row(figure: Figure, form: str, seconds: float) -> str:
    met = {True: "yes", False: "**no**", None: "not run"}[figure.met]
    reached = figure.reached.replace("|", "\\|").replace("\n", " ")
    return f"| {figure.number} | {figure.demand} | {reached} ({form}, {seconds:.0f} s) | {met} |"


def with_rows(page: str, rows: dict[str, str]) -> str:
    """The page with these rows of its table replaced; rows that were not run stay.

    Raises:
        ValueError: If the page has no table between its two comments.
    """
    before, begin, rest = page.partition(_BEGIN)
    table, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"the page needs {_BEGIN} and {_END}")
    known = {line.split("|")[1].strip(): line for line in table.splitlines() if "| A" in line}
    blank = {
        number: f"| {number} | {demand} | {where} | |"
        for number, (demand, where) in ELSEWHERE.items()
    }
    all_rows = blank | known | rows
    lines = [all_rows[number] for number in sorted(all_rows, key=lambda number: int(number[1:]))]
    return f"{before}{_BEGIN}\n{_HEAD}" + "\n".join(lines) + f"\n{_END}{after}"


if __name__ == "__main__":
    sys.exit(main())
