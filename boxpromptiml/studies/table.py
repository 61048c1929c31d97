"""The table of a study: scores and intervals of each variant, and paired differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import write_json, write_text
from boxpromptiml.metrics.bootstrap import Interval, difference_interval, mean_interval
from boxpromptiml.metrics.histograms import Floats
from boxpromptiml.metrics.results import Evaluation, ImageRow, read_evaluation
from boxpromptiml.visualization.plots import BASELINE, panels, save_figure, style


@dataclass(frozen=True)
class VariantScores:
    """The scores of one variant, image by image, for each of its seeds.

    Attributes:
        name: Name of the variant.
        what: Description shown in the table.
        seeds: In ascending order.
        evaluations: One per seed, of the same images.
    """

    name: str
    what: str
    seeds: tuple[int, ...]
    evaluations: tuple[Evaluation, ...]

    @classmethod
    def read(cls, name: str, what: str, folders: dict[int, Path]) -> "VariantScores":
        """Read the evaluation folders of a variant's seeds.

        Args:
            name: Name of the variant.
            what: Its description in the table.
            folders: Evaluation folder by seed.

        Raises:
            UserError: If they cover different images.
        """
        seeds = tuple(sorted(folders))
        found = tuple(read_evaluation(folders[seed]) for seed in seeds)
        if len({tuple(row.id for row in one.rows) for one in found}) > 1:
            raise UserError(f"{name}: its seeds were scored on different images; score them again")
        return cls(name, what, seeds, found)

    def rows(self, label: int) -> list[ImageRow]:
        """The images of a label, with the scores of the first seed."""
        return [row for row in self.evaluations[0].rows if row.label == label]

    def values(self, score: str, label: int, seeds: Sequence[int] | None = None) -> Floats:
        """A score of every image of a label, averaged over seeds.

        Args:
            score: Name of the score in a row of per_image.csv, such as `f1`.
            label: 0 for authentic images, 1 for manipulated ones.
            seeds: Which seeds to average; None for all.

        Returns:
            (N,) in the order of the manifests.
        """
        wanted = self.seeds if seeds is None else seeds
        kept = [e for s, e in zip(self.seeds, self.evaluations, strict=True) if s in wanted]
        columns = [[getattr(row, score) for row in e.rows if row.label == label] for e in kept]
        return np.asarray(np.array(columns, dtype=np.float64).mean(axis=0))

    def mean(self, score: str, label: int = 1) -> Interval:
        """Mean of `values` over the images, with its interval over their groups."""
        groups = [row.group for row in self.rows(label)]
        return mean_interval(self.values(score, label), groups)

    def by_seed(self, score: str) -> list[float]:
        """Mean of a score, named as in `values`, over the manipulated images for each seed."""
        return [float(np.nanmean(self.values(score, 1, [seed]))) for seed in self.seeds]

    def best_f1(self) -> float:
        """Maximum of the curve of F1 by threshold, averaged over seeds; nan without a curve."""
        found = [e.metrics["scores"]["best_f1"]["value"] for e in self.evaluations]
        return float(np.mean([math.nan if value is None else value for value in found]))


@dataclass(frozen=True)
class StudyTable:
    """The variants that have a result.

    Attributes:
        title: Title of the study.
        reference: Name of the variant that the others are compared with.
        split: Which images were scored.
        variants: In the order of the study's file.
    """

    title: str
    reference: str
    split: str
    variants: tuple[VariantScores, ...]

    def difference(self, variant: VariantScores) -> Interval | None:
        """F1 of a variant minus the reference's, paired by image, over the seeds both have.

        None for the reference itself, without a reference, and without a common seed.

        Raises:
            UserError: If both were scored on different images.
        """
        reference = next((a for a in self.variants if a.name == self.reference), None)
        if reference is None or reference is variant:
            return None
        seeds = self._common_seeds(variant)
        rows, others = variant.rows(1), reference.rows(1)
        if [row.id for row in rows] != [row.id for row in others]:
            raise UserError(f"{variant.name} and {reference.name} were scored on different images")
        if not seeds:
            return None
        ours, theirs = (a.values("f1", 1, seeds) for a in (variant, reference))
        return difference_interval(ours, theirs, [row.group for row in rows])

    def differences_by_seed(self, variant: VariantScores) -> list[float]:
        """F1 of a variant minus the reference's, by rising seed, for the seeds that both have."""
        reference = next((a for a in self.variants if a.name == self.reference), None)
        if reference is None or reference is variant:
            return []
        ours, theirs = (
            dict(zip(a.seeds, a.by_seed("f1"), strict=True)) for a in (variant, reference)
        )
        return [ours[seed] - theirs[seed] for seed in self._common_seeds(variant)]

    def _common_seeds(self, variant: VariantScores) -> list[int]:
        others = (set(a.seeds) for a in self.variants if a.name == self.reference)
        return sorted(set(variant.seeds).intersection(*others))

    def markdown(self) -> str:
        """The table as Markdown, with a note on what its intervals mean."""
        title, reference = _cell(self.title), _cell(self._reference_text())
        head = (
            f"| {title} | F1 at 0.5 | against {reference} | best F1 | AUC "
            "| pixel FPR on authentic images | F1 by seed |\n|---|---|---|---|---|---|---|\n"
        )
        lines = [self._line(variant) for variant in self.variants]
        return head + "".join(lines) + "\n" + self._note()

    def _reference_text(self) -> str:
        texts = [variant.what for variant in self.variants if variant.name == self.reference]
        return texts[0].split(" (")[0] if texts else self.reference

    def _line(self, variant: VariantScores) -> str:
        cells = (
            variant.what,
            _show(variant.mean("f1")),
            self._show_difference(variant),
            f"{variant.best_f1():.3f}",
            _show(variant.mean("auc")),
            _show(variant.mean("flagged", 0), percent=True),
            ", ".join(
                f"{seed}: {f1:.3f}"
                for seed, f1 in zip(variant.seeds, variant.by_seed("f1"), strict=True)
            ),
        )
        return f"| {' | '.join(map(_cell, cells))} |\n"

    def _show_difference(self, variant: VariantScores) -> str:
        difference, seeds = self.difference(variant), self._common_seeds(variant)
        if difference is None:
            return "-"
        have = {
            seed
            for a in self.variants
            if a.name in (variant.name, self.reference)
            for seed in a.seeds
        }
        only = "" if have == set(seeds) else f" (seed {', '.join(map(str, seeds))} only)"
        spread = ""
        if len(seeds) > 1:
            each = ", ".join(f"{d:+.3f}" for d in self.differences_by_seed(variant))
            spread = f"; by seed {each}"
        return _show(difference, sign=True) + spread + only

    def _note(self) -> str:
        if not self.variants:
            return "No variant has a result yet.\n"
        first = self.variants[0]
        return (
            f"{len(first.rows(1))} manipulated and {len(first.rows(0))} authentic images "
            f"({self.split}); in brackets 95 % bootstrap intervals over images, seeds averaged, "
            "differences paired by image. Intervals cover image sampling, not the variance between "
            "seeds: a difference counts if its interval leaves 0 out and every seed has its sign "
            "(seeds vary the student only; labels were made once). The threshold of the best F1 "
            "was chosen on these images.\n"
        )

    def as_json(self) -> dict[str, Any]:
        """The content of study.json."""
        return {
            "title": self.title,
            "reference": self.reference,
            "split": self.split,
            "variants": {
                variant.name: {
                    "what": variant.what,
                    "seeds": list(variant.seeds),
                    "pixel_f1": variant.mean("f1").to_json(),
                    "pixel_f1_by_seed": variant.by_seed("f1"),
                    "difference": difference.to_json()
                    if (difference := self.difference(variant))
                    else None,
                    "difference_by_seed": self.differences_by_seed(variant),
                    "best_f1": variant.best_f1(),
                    "iou": variant.mean("iou").to_json(),
                    "auc": variant.mean("auc").to_json(),
                    "false_alarm_pixels": variant.mean("flagged", 0).to_json(),
                }
                for variant in self.variants
            },
        }

    def figure(self) -> Figure:
        """F1 of every variant with its interval; small points are its seeds."""
        figure, (axes,) = panels(1, width=7.0, height=0.9 + 0.36 * max(len(self.variants), 1))
        for height, variant in enumerate(reversed(self.variants)):
            f1 = variant.mean("f1")
            is_reference = variant.name == self.reference
            look = style(1 if is_reference else 0)
            spread = [[f1.value - f1.low], [f1.high - f1.value]]
            axes.errorbar([f1.value], [height], xerr=spread, **look, capsize=4, markersize=7)
            seeds = variant.by_seed("f1")
            axes.plot(seeds, [height] * len(seeds), "|", color="black", markersize=9)
            if is_reference:
                axes.axvline(f1.value, color=BASELINE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.set_yticks(
            range(len(self.variants)),
            [variant.what for variant in reversed(self.variants)],
            parse_math=False,
        )
        axes.set(xlabel="mean F1 at 0.5 (bars: 95 % over images; ticks: seeds)")
        axes.set_xlim(left=0)
        axes.set_ylim(-0.6, max(len(self.variants), 1) - 0.4)
        axes.set_title(self.title, fontsize=10, parse_math=False)
        return figure

    def write(self, folder: Path) -> None:
        """Write study.json, study.md, study.png and study.svg."""
        write_json(folder / "study.json", self.as_json())
        write_text(folder / "study.md", self.markdown())
        save_figure(self.figure(), folder / "study")


def _cell(text: str) -> str:
    """Text that stays in its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _show(interval: Interval, sign: bool = False, percent: bool = False) -> str:
    if percent:
        value, low, high = (f"{100 * x:.1f}" for x in interval[:3])
        return f"{value} % [{low}, {high}]"
    value, low, high = (f"{x:+.3f}" if sign else f"{x:.3f}" for x in interval[:3])
    return f"{value} [{low}, {high}]"
