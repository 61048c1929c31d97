"""How many untouched and forged photographs the case report marks, with the shipped student.

    python experiments/default/outlines.py --data DATA

The first table is of images held back in the folds (docs/results/in_use/copies/), by their
calibrated image probability alone. The second is of 100 images of each kind, drawn by a seed: those
with a region above the threshold, and those that are marked, among the first and the last 50. The
shipped student was trained on all of them but the validation forgeries.
"""

import sys
from argparse import ArgumentParser
from collections import defaultdict
from pathlib import Path

import numpy as np

from boxpromptiml import Localizer
from boxpromptiml.errors import UserError
from boxpromptiml.inference.case_report import find_regions, marking_limit
from boxpromptiml.io.images import read_image
from boxpromptiml.metrics.results import read_evaluation

RESULTS = Path(__file__).parents[2] / "docs/results/in_use/copies"
KINDS = {
    "CASIA v1, authentic": "casia_v1/Au",
    "MISD, authentic": "misd/authentic",
    "validation forgeries, authentic": "forgeries/val/authentic",
    "CASIA v1, forged": "casia_v1/Sp",
    "MISD, forged": "misd/tampered",
    "validation forgeries, forged": "forgeries/val/tampered",
}
COUNT = 100


def main() -> None:
    """Print both tables."""
    parser = ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    localizer = Localizer.load()
    limit = marking_limit(localizer.spec.calibration)
    if limit is None:
        raise UserError("the shipped student is not calibrated")
    sys.stdout.write(f"limit {limit.score:.3f} of {limit.fpr:.0%}\n\n")
    scores: dict[str, list[float]] = defaultdict(list)
    for folder in sorted(RESULTS.iterdir()):
        for row in read_evaluation(folder).rows:
            kind = row.kind or ("forged" if row.label else "authentic")
            scores[f"{row.dataset}, {kind}"].append(row.image_score)
    for name, values in sorted(scores.items()):
        above = np.array(values) > limit.score
        sys.stdout.write(f"| {name} | {len(values)} | {above.mean():.1%} |\n")
    sys.stdout.write("\n")
    for name, place in KINDS.items():
        files = sorted(path for path in (args.data / place).iterdir() if path.is_file())
        drawn = np.random.default_rng(args.seed).choice(len(files), COUNT, replace=False)
        found = [_score_and_regions(localizer, files[number]) for number in drawn]
        flagged = sum(regions > 0 for _, regions in found)
        marked = [score > limit.score and regions > 0 for score, regions in found]
        halves = sum(marked[: COUNT // 2]), sum(marked[COUNT // 2 :])
        sys.stdout.write(f"| {name} | {flagged} | {halves[0]} | {halves[1]} |\n")


def _score_and_regions(localizer: Localizer, path: Path) -> tuple[float, int]:
    (found,) = localizer.localize([read_image(path)[0]])
    return found.score, len(find_regions(found.prob, localizer.spec.threshold))


if __name__ == "__main__":
    main()
