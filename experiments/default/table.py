"""Tables of what experiments/default/train.py measured, from docs/results/default/ alone.

    python experiments/default/table.py

Scores of the folds are pooled: every image is scored by the student that was not trained on its
source photographs. Intervals are 95 %, by bootstrap over groups.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boxpromptiml.metrics.bootstrap import Interval, mean_interval, statistic_interval
from boxpromptiml.metrics.image import image_auc
from boxpromptiml.metrics.results import ImageRow, read_evaluation

RESULTS = Path(__file__).parents[2] / "docs/results/default"
NAN = float("nan")
LINES = {
    "plain recipe, boxes": ("plain",),
    "both recipes, boxes": ("general",),
    "real forgeries too, boxes, held-back groups": tuple(f"fold_{n}" for n in range(5)),
    "one fold of it, boxes": ("fold_0",),
    "the same fold, masks": ("fold_0_masks",),
    "as shipped": ("shipped",),
}


def rows_of(names: Sequence[str], split: str) -> list[ImageRow]:
    """Rows of evaluations, one after the other; empty unless all of them exist."""
    folders = [RESULTS / name / split for name in names]
    if not all((folder / "metrics.json").exists() for folder in folders):
        return []
    return [row for folder in folders for row in read_evaluation(folder).rows]


def line(name: str, rows: Sequence[ImageRow]) -> str:
    """One line of a table."""
    groups = [row.group for row in rows]
    labels = np.array([row.label == 1 for row in rows])
    scores = np.array([row.image_score for row in rows])
    flagged = [row.flagged if row.label == 0 else NAN for row in rows]
    found = [
        mean_interval([row.f1 for row in rows], groups),
        mean_interval([row.auc for row in rows], groups),
        statistic_interval(lambda weights: image_auc(weights, scores, labels), len(rows), groups)
        if 0 < labels.sum() < len(rows)
        else Interval(NAN, NAN, NAN, len(rows)),
        mean_interval(flagged, groups),
    ]
    return " | ".join(["", name, str(len(rows)), *map(shown, found), ""]).strip()


def shown(interval: Interval) -> str:
    """A value with its interval, a dash where there is none."""
    if np.isnan(interval.value):
        return "-"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def main() -> None:
    """Print a table for each dataset."""
    for dataset, split in (("forgeries", "val"), ("casia_v1", "test"), ("misd", "test")):
        out = [f"{dataset}\n\n| student | images | pixel F1 | pixel AUC | image AUC | pixel FPR |"]
        out.append("|---|---|---|---|---|---|")
        for name, names in LINES.items():
            if names == ("fold_0",) and not rows_of(("fold_0_masks",), split):
                continue  # one fold says something beside its pair only
            rows = [row for row in rows_of(names, split) if row.dataset == dataset]
            if rows:
                out.append(line(name, rows))
            kinds = sorted({row.kind for row in rows if row.kind})
            out += [line(f"... {kind}", [r for r in rows if r.kind == kind]) for kind in kinds]
        sys.stdout.write("\n".join(out) + "\n\n")


if __name__ == "__main__":
    main()
