"""Reading a report as a browser does, for the tests of its parts."""

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boxpromptiml.evaluation.evaluate import EvaluateSettings, evaluate_predictions
from boxpromptiml.evaluation.runs import Run
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Header, safe_name, write_manifest
from boxpromptiml.metrics.bootstrap import Interval
from boxpromptiml.metrics.results import Evaluation, ImageRow, read_evaluation, write_evaluation
from boxpromptiml.records import Box, Sample
from boxpromptiml.report.comparison import PAIRED, ComparedRun, Comparison
from boxpromptiml.report.gallery import Gallery, GalleryImage, make_gallery
from boxpromptiml.report.page import Plot, Report
from boxpromptiml.report.panels import Views, draw_panels
from boxpromptiml.report.run import GroupTable, ScoredRun
from boxpromptiml.report.training import Audit, BestEpoch, Training, TrainingImages
from boxpromptiml.visualization.plots import figure_svg, threshold_figure

CURVE = ((0.25, 0.4), (0.5, 0.6), (0.75, 0.3))
HOSTILE = "\"'><script>alert(1)</script><img src=https://evil.example/x onerror=a()>&lt;{{ 7*7 }}"
VOID = {"meta", "img", "br", "hr", "link", "input", "use", "path", "rect"}


class Page(HTMLParser):
    """Every element with its attributes, and the text below each kind of element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.text[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def texts(self, tag: str) -> list[str]:
        return [" ".join(text.split()) for text in self.text.get(tag, [])]

    def answers(self) -> dict[str, str]:
        """The answers at the top of the page, by question."""
        cards = sum(attrs.get("class") == "number" for attrs in self.all("dd"))
        count = len(self.texts("dt")) - cards
        return dict(zip(self.texts("dt")[:count], self.texts("dd")[:count], strict=True))


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def views(size: tuple[int, int] = (20, 30), seed: int = 0) -> Views:
    """An image with one box and a region of 5 x 10 pixels, found with probability 0.75."""
    truth = np.zeros(size, bool)
    truth[5:10, 5:15] = True
    levels = np.where(truth, np.uint8(255), np.uint8(0))
    levels[0] = 127
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Views(image, (Box(4, 4, 16, 11),), levels, truth.astype(np.float32) * 0.75, truth)


def entry(
    name: str = "a", f1: float = 0.5, kind: str = "splice", flagged: float = 0.1
) -> GalleryImage:
    return GalleryImage(name, kind, math.isfinite(f1), f1, f1 / (2 - f1), flagged)


@cache
def gallery(*entries: GalleryImage) -> Gallery:
    return make_gallery(entries, lambda one, side, most: draw_panels(views(), side, most))


def plain(values: Mapping[str, float | None]) -> dict[str, Interval]:
    return {
        key: Interval(math.nan if value is None else value, math.nan, math.nan, 0)
        for key, value in values.items()
    }


@cache
def threshold_plot(name: str = "F1", salt: str = "threshold") -> Plot:
    figure = threshold_figure({name: CURVE, "other": CURVE}, 0.21)
    rows = tuple((str(x), f"{y:.3f}") for x, y in CURVE)
    return Plot(salt, figure_svg(figure, salt), ("Threshold", "Mean F1"), rows)


def evaluation(dataset: str = "set", rows: int = 4, groups: int = 4) -> Evaluation:
    """Of manipulated images with F1 0, 0.1, 0.2 ..., in as many groups."""
    metrics: dict[str, Any] = {
        "preset": "default",
        "threshold": 0.5,
        "split": "test",
        "images": {"manipulated": rows, "authentic": 0, "unknown": 0},
        "bootstrap": {"level": 0.95, "resamples": 2000, "seed": 0, "unit": "group"},
        "scores": {"best_f1": {"value": 0.6, "best_f1_threshold": 0.5}},
    }
    row = ImageRow("a", dataset, "splice", "g", 1, 20, 30, 0.9, 0.5, 0.4, 0.9, 0.5, 0.5, 0.1, 0.1,
                   "5% to 15%", "a")  # fmt: skip
    members = (
        replace(row, id=str(n), group=f"g{n % groups}", f1=(n % 11) / 10) for n in range(rows)
    )
    return Evaluation(metrics, tuple(members))


def training(text: str = "calm") -> Training:
    audit = Audit(Path(text), text, {text: 3}, 3, 0.7, 0.8, 0.1, ((text, 0.1),))
    images = TrainingImages(Counter({"pseudo": 3}), Counter({"human": 3}), 2, (text,))
    return Training(text, text, text, 5, 3, BestEpoch(2, 0.4, 3), images, (audit,))


def report(**changes: object) -> Report:
    calm = Report(
        title="A run",
        checkpoint="best.ckpt",
        evaluation=evaluation(),
        scores=plain({"pixel_f1": 0.6218, "iou": 0.5, "empty_f1": 0.0, "full_f1": 0.21}),
        groups=(),
        plots=(threshold_plot(),),
        gallery=gallery(entry("good", 0.9), entry("bad", 0.1), entry("middling", 0.5)),
        training="no manifest was found",
        settings={"seed": 0, "data": {"size": 224, "sources": ["a", "b"]}},
        versions={"torch": "2.10"},
        checksums={"best.ckpt": "ab12"},
    )
    return replace(calm, **changes)  # type: ignore[arg-type]


def full(text: str = "calm") -> Report:
    """A report with every part, each holding `text` where a name may come from outside."""
    scores = {"pixel_f1": Interval(0.5, 0.4, 0.6, 10)}
    differences = {key: Interval(0.1, 0.05, 0.2, 3) for key in PAIRED}
    other = ComparedRun(text, scores, 3, 1, 2, 1, {"preset": (text, "x")}, differences=differences)
    compared = Comparison(
        ComparedRun(text, scores, 3), (other,), ("pixel_f1",), {text: (text, None)}
    )
    return report(
        title=text,
        checkpoint=text,
        evaluation=evaluation(text),
        scores=plain({text: 1.0, "pixel_f1": 0.5}),
        groups=(GroupTable("kind", ("pixel_f1",), {text: (10, scores), "other": (12, scores)}),),
        comparison=compared,
        plots=(threshold_plot(text),),
        gallery=gallery(entry(text, 0.5, text), entry("b", 0.4), entry(f"z{text}", math.nan)),
        training=training(text),
        worst_pseudo_masks=gallery(entry(text, 0.1, text)).shown,
        settings={text: text},
        versions={text: text},
        checksums={text: text},
    )


def make_run(
    folder: Path,
    probs: Sequence[float],
    authentic: Sequence[float] = (),
    ids: Sequence[str] | None = None,
) -> ScoredRun:
    """A run's folder with one scored image for each probability of its region of 5 x 10 pixels.

    Authentic images have that probability in the same place. Images are those of `views`.
    """
    names = ids or [f"set/{'abcdefghijklmnop'[i]}" for i in range(len(probs) + len(authentic))]
    samples, values = [], [*probs, *authentic]
    out = folder / "evaluation" / "test"
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        manipulated, file = number < len(probs), f"{number}.png"
        seen = views(seed=number)
        assert seen.truth is not None
        images.write_png(folder / "data" / file, seen.image)
        sample = Sample(
            id=name,
            dataset="set",
            split="test",
            group=name,
            image=file,
            size=(20, 30),
            label=int(manipulated),
            boxes=seen.boxes if manipulated else (),
        )
        if manipulated:
            images.write_png(folder / "data" / f"m{file}", seen.truth.astype(np.uint8) * 255)
            kind = ("splice", "removal")[number % 2]
            sample = replace(sample, kind=kind, mask=f"m{file}")
        samples.append(sample)
        level = np.where(seen.truth, np.uint8(round(255 * value)), np.uint8(0))
        images.write_png(out / "predictions" / "prob" / f"{safe_name(name)}.png", level)
    manifest = folder / "data" / "test.jsonl"
    write_manifest(manifest, Header(), samples)
    (folder / "config.yaml").write_text(_config(folder, manifest))
    train = [replace(s, id=f"t{s.id}", split="train", pseudo_mask="p.png") for s in samples]
    write_manifest(folder / "data" / "train.jsonl", Header(), train)
    _write_logs(folder, train[0].id)
    settings = EvaluateSettings(resamples=200)
    write_evaluation(out, evaluate_predictions(out / "predictions", [manifest], settings))
    checkpoint = folder / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.write_bytes(b"weights")
    return ScoredRun(Run.open(folder), out, checkpoint, read_evaluation(out))


def _config(folder: Path, manifest: Path) -> str:
    config = {
        "trainer": {"max_epochs": 3, "default_root_dir": str(folder)},
        "model": {
            "class_path": "boxpromptiml.tasks.distill.DistillTask",
            "init_args": {"student": {"backbone": "tiny"}, "pretrained": None, "lr": 0.003},
        },
        "data": {
            "train": [str(manifest.with_name("train.jsonl"))],
            "test": [str(manifest)],
            "supervision": "pseudo",
        },
    }
    return json.dumps(config)  # JSON is YAML


def _write_logs(folder: Path, worst: str) -> None:
    (folder / "metrics.csv").write_text(
        "epoch,step,train/loss,val/pixel_f1\n"
        "0,1,1.0,\n0,2,0.5,\n0,2,,0.1\n1,4,0.5,\n1,4,,0.4\n2,6,0.25,\n2,6,,0.3\n"
    )
    summary = {
        "status": {"authentic": 1, "ok": 4},
        "teacher": {"name": "grabcut"},
        "audit": {
            "images": 4,
            "iou": 0.7482,
            "f1": 0.8446,
            "unsure": 0.05,
            "worst": [{"id": worst, "iou": 0.1177}],
        },
    }
    (folder / "data" / "summary.json").write_text(json.dumps(summary))
