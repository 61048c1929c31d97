"""What annotating cost: counts, and seconds per photograph."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from boxpromptiml.annotate.storage import Annotation, read_saved


def counts(annotations: Iterable[Annotation]) -> dict[str, int]:
    """Number of photographs by verdict; `open` are those without one."""
    found = Counter(one.verdict or "open" for one in annotations)
    return {name: found[name] for name in ("manipulated", "authentic", "skipped", "open")}


def seconds_text(annotations: Iterable[Annotation]) -> str:
    """Median and quartiles of the seconds spent on photographs with a verdict."""
    seconds = [one.seconds for one in annotations if one.verdict is not None]
    if not seconds:
        return "none annotated yet"
    low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    return f"median {median:.1f} s, quartiles {low:.1f} and {high:.1f} s (n = {len(seconds)})"


def summary_text(path: Path) -> str:
    """The summary of a COCO file of `annotate`, a few lines.

    Raises:
        UserError: If the file cannot be read.
    """
    every = list(read_saved(path).annotations.values())
    boxes = sum(len(one.boxes) for one in every)
    number = counts(every)
    lines = [
        f"{path}: {len(every)} photographs: {number['manipulated']} manipulated ({boxes} boxes), "
        f"{number['authentic']} authentic, {number['skipped']} skipped, {number['open']} open",
        f"seconds per photograph: {seconds_text(every)}",
    ]
    for verdict in ("manipulated", "authentic", "skipped"):
        if number[verdict]:
            text = seconds_text(one for one in every if one.verdict == verdict)
            lines.append(f"  {verdict}: {text}")
    people = sorted({one.annotator for one in every if one.annotator})
    for person in people if len(people) > 1 else ():
        text = seconds_text(one for one in every if one.annotator == person)
        lines.append(f"  by {person}: {text}")
    return "\n".join(lines) + "\n"
