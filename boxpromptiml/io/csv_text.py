"""CSV files that a spreadsheet opens without running anything."""

import csv
import io
import math
from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV file whose cells no spreadsheet takes for a formula: those get a leading '.

    None and nan become empty cells.
    """
    text = io.StringIO()
    lines = [columns, *([_cell(value) for value in row] for row in rows)]
    # Before Python 3.13 the writer leaves a cell with a lone \r unquoted, and no reader takes that.
    has_return = any("\r" in cell for line in lines for cell in line if isinstance(cell, str))
    if has_return:
        csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(lines)
    else:
        csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    # A leading ' is doubled, so that reading gives back what was written.
    is_odd = isinstance(value, str) and value.startswith((*_FORMULA, "'"))
    return f"'{value}" if is_odd else value
