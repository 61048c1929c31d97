"""Tables of what train.py and in_use.py measured, from docs/results/ alone.

    python experiments/default/table.py

Scores of the folds are pooled: every image is scored by the student that was not trained on its
source photographs. Intervals are 95 %, by bootstrap over groups. In the table of use, kinds of
forgeries stand beside all authentic images of their dataset; its image scores are calibrated but
for those of the network alone.
"""

import sys
from collections.abc import Sequence
from itertools import compress, pairwise
from pathlib import Path

import numpy as np

from boxpromptiml.metrics.bootstrap import (
    Interval,
    difference_interval,
    mean_interval,
    statistic_interval,
)
from boxpromptiml.metrics.image import image_auc
from boxpromptiml.metrics.results import ImageRow, read_evaluation

RESULTS = Path(__file__).parents[2] / "docs/results/default"
NAN = float("nan")
LINES = {
    "`plain`: synthetic forgeries, plain recipe": ("plain",),
    "`general`: synthetic forgeries, both recipes": ("general",),
    "`fold_*`: real ones too, held-back groups": tuple(f"fold_{n}" for n in range(5)),
    "`fold_0`": ("fold_0",),
    "`fold_0_masks`: the same fold, masks": ("fold_0_masks",),
    "`shipped`": ("shipped",),
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
    found = [
        mean_interval([row.f1 for row in rows], groups),
        mean_interval([row.auc for row in rows], groups),
        auc_of_images(rows),
    ]
    pixels = percent(mean_interval(flagged(rows), groups))
    return " | ".join(["", name, str(len(rows)), *map(shown, found), pixels, ""]).strip()


def flagged(rows: Sequence[ImageRow]) -> list[float]:
    """Flagged fractions of the authentic images, nan for the others."""
    return [row.flagged if row.label == 0 else NAN for row in rows]


def auc_of_images(rows: Sequence[ImageRow]) -> Interval:
    """Image AUC; nan where one class is absent."""
    labels = np.array([row.label == 1 for row in rows])
    scores = np.array([row.image_score for row in rows])
    if not 0 < labels.sum() < len(rows):
        return Interval(NAN, NAN, NAN, len(rows))
    groups = [row.group for row in rows]
    return statistic_interval(lambda weights: image_auc(weights, scores, labels), len(rows), groups)


def in_use(name: str, stages: Sequence[Sequence[ImageRow]]) -> str:
    """One line of the table of use: the same images at each stage, first by the network alone."""
    groups = [row.group for row in stages[0]]
    f1 = [[row.f1 for row in rows] for rows in stages]
    steps = [difference_interval(more, less, groups) for less, more in pairwise(f1)]
    auc = [mean_interval([row.auc for row in rows], groups) for rows in stages]
    images = [auc_of_images(rows) for rows in stages]
    pixels = [mean_interval(flagged(rows), groups) for rows in stages]
    cells = [
        name,
        str(sum(row.label == 1 for row in stages[0])),
        *(shown(mean_interval(values, groups)) for values in f1),
        *map(shown, steps),
        *(", ".join(f"{one.value:.3f}" for one in kind) for kind in (auc, images, pixels)),
    ]
    return f"| {' | '.join(cells)} |"


def table_of_use() -> list[str]:
    """The table of the folds as the shipped student is used; empty without in_use.py."""
    folds = [f"fold_{number}" for number in range(5)]
    alone = {row.id: row for fold in folds for row in rows_of((fold,), "test")}
    for number, fold in enumerate(folds):
        alone |= {row.id: row for row in rows_of((fold,), "val")[number::5]}
    out = []
    for name in ("casia", "misd", "forgeries"):
        places = [RESULTS.parent / "in_use" / part / name for part in ("flips", "copies")]
        if not all((folder / "metrics.json").exists() for folder in places):
            continue
        flips, both = (read_evaluation(folder).rows for folder in places)
        stages = [[alone[row.id] for row in flips], flips, both]
        out.append(in_use(name, stages))
        for kind in sorted({row.kind for row in flips if row.kind}):
            kept = [row.kind == kind or row.label == 0 for row in flips]
            out.append(in_use(f"... {kind}", [list(compress(rows, kept)) for rows in stages]))
    return out


def shown(interval: Interval) -> str:
    """A score with its interval, a dash where there is none."""
    if np.isnan(interval.value):
        return "-"
    text = f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    return text.replace("0.", ".")


def percent(interval: Interval) -> str:
    """A fraction with its interval in percent, a dash where there is none."""
    if np.isnan(interval.value):
        return "-"
    return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


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
    if lines := table_of_use():
        head = (
            "as the shipped student is used: network, + mirror images, + copies\n\n"
            "| on | forgeries | F1 | + mirrored | + copies | difference | difference | AUC "
            "| image AUC | pixel FPR |"
        )
        sys.stdout.write("\n".join([head, "|---" * 10 + "|", *lines]) + "\n")


if __name__ == "__main__":
    main()
