"""The page as a browser and a screen reader get it: parsed, never searched as text."""

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxpromptiml import provenance
from boxpromptiml.metrics import LocalizationMetrics
from boxpromptiml.records import Box
from boxpromptiml.reporting import plots, wording
from boxpromptiml.reporting.report import GalleryRow, Report, render, write_report

HOSTILE = "\"'><script>alert(1)</script><img src=https://evil.example/x onerror=a()>&lt;{{ 7*7 }}"
VOID = {"meta", "img", "br", "hr", "link", "input", "use", "path"}


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


def row(name: str = "a", f1: float = 0.5, size: tuple[int, int] = (20, 30)) -> GalleryRow:
    truth = np.zeros(size, bool)
    truth[5:10, 5:15] = True
    levels = np.where(truth, np.uint8(255), np.uint8(0))
    levels[0] = 127
    return GalleryRow(
        id=name,
        kind="splice",
        image=np.full((*size, 3), 90, np.uint8),
        boxes=(Box(4, 4, 16, 11),),
        pseudo_mask=levels,
        prob=truth.astype(np.float32) * 0.75,
        truth=truth,
        f1=f1,
        iou=f1 / (2 - f1),
    )


def report(**changes: object) -> Report:
    plain = Report(
        title="A run",
        summary="Trained on boxes.",
        metrics={"pixel_f1": 0.6218, "iou": 0.5, "empty_f1": 0.0, "full_f1": 0.21},
        curve=([0.25, 0.5, 0.75], [0.4, 0.6, 0.3]),
        gallery=(row("good", 0.9), row("bad", 0.1), row("middling", 0.5)),
        settings={"seed": 0, "data": {"size": 224, "sources": ["a", "b"]}},
        versions={"torch": "2.10"},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def page(**changes: object) -> Page:
    return Page(render(report(**changes)))


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_page_runs_and_fetches_nothing() -> None:
    found = page()
    tags = {tag for tag, _ in found.elements}
    assert not tags & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "foreignobject",
    }
    for tag, attrs in found.elements:
        assert not [name for name in attrs if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:image/")), (tag, attrs[name])
        assert "url(" not in attrs.get("style", "").replace("url(#", "")
    assert all("@import" not in text and "url(" not in text for text in found.text["style"])


def test_policy_allows_inline_style_and_data_images_only() -> None:
    (policy,) = [m["content"] for m in page().all("meta") if "http-equiv" in m]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("style-src") == "'unsafe-inline'"
    assert rules.pop("img-src") == "data:"
    assert set(rules.values()) == {"'none'"}


def test_hostile_names_stay_text() -> None:
    calm = page(gallery=(row(),), settings={"k": "v"}, versions={"k": "v"}, metrics={"k": 1.0})
    found = page(
        title=HOSTILE,
        summary=HOSTILE,
        metrics={HOSTILE: 1.0},
        gallery=(replace(row(), id=HOSTILE, kind=HOSTILE),),
        settings={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
    )
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in calm.elements]
    assert found.texts("title") == found.texts("h1") == found.texts("h3") == [HOSTILE]
    assert f"Image {HOSTILE}" in [img["alt"] for img in found.all("img")]


def test_undecodable_names_can_be_written(tmp_path: Path) -> None:
    write_report(report(gallery=(row("caf\udce9"),)), tmp_path / "report.html")
    assert "caf\\udce9" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_row_has_five_pictures_with_words_for_each() -> None:
    found = page()
    pictures = found.all("img")
    assert len(pictures) == 5 * 3
    assert len(found.all("figcaption")) == 5 * 3 + 1  # and one below the curve
    first = [img["alt"] for img in pictures[:5]]
    assert first == [
        "Image bad",
        "The image with 1 coarse box",
        "Pseudo-mask: 8.3% of the pixels manipulated, 5.0% unsure",
        "Heat map of the prediction, highest probability 0.75",
        "Ground truth: 8.3% of the pixels are manipulated",
    ]


def test_photos_are_jpeg_and_masks_exact_png_at_the_size_they_declare() -> None:
    pictures = page(gallery=(row(size=(300, 1000)),)).all("img")
    files = [decoded(img["src"]) for img in pictures]
    assert [file.format for file in files] == ["JPEG", "JPEG", "PNG", "JPEG", "PNG"]
    assert {file.size for file in files} == {(400, 120)}
    assert {(img["width"], img["height"]) for img in pictures} == {("400", "120")}
    small = [decoded(img["src"]) for img in page(gallery=(row(),)).all("img")]
    assert small[0].size == (30, 20)
    truth = np.asarray(small[4])
    assert (truth == 255).all(axis=2).sum() == 50
    assert (truth == 0).all(axis=2).sum() == 550


def test_missing_pseudo_mask_is_said_and_not_drawn() -> None:
    found = page(gallery=(replace(row(), pseudo_mask=None),))
    assert len(found.all("img")) == 4
    assert len([c for c in found.texts("figcaption") if c == "Pseudo-mask"]) == 1
    assert any("none for this image" in text for text in found.texts("figure"))


def test_gallery_is_worst_first_and_authentic_images_come_last() -> None:
    clean = replace(row("clean", math.nan), truth=np.zeros((20, 30), bool))
    found = page(gallery=(clean, *report().gallery))
    assert found.texts("h3") == ["bad", "middling", "good", "clean"]
    assert "F1 0.100" in found.texts("article")[0]
    assert "IoU 0.053" in found.texts("article")[0]
    assert "authentic" in found.texts("article")[-1]
    assert "nan" not in found.texts("article")[-1]
    assert any("1 of the 3 manipulated images" in text for text in found.texts("p"))


def test_kinds_are_listed_worst_first() -> None:
    gallery = (row("a", 0.9), row("b", 0.7), replace(row("c", 0.2), kind="removal"))
    items = page(gallery=gallery).texts("li")
    assert [text for text in items if text.endswith(")")][:2] == [
        "removal 0.200 (1)",
        "splice 0.800 (2)",
    ]


def test_metrics_have_human_names_and_unknown_ones_their_own() -> None:
    found = page(
        metrics={"pixel_f1": 0.6218, "false_alarm_pixels": 0.034, "minutes": 3, "my_metric": 41}
    )
    assert "Pixel F1" in found.texts("dt")
    assert "0.622" in found.texts("dd")
    rows = found.texts("tr")
    assert any(re.match(r"Falsely flagged area .*3\.4 %$", text) for text in rows)
    assert any(re.match(r"Time .*3\.00 min$", text) for text in rows)
    assert "my_metric41" in [text.replace(" ", "") for text in rows]


def test_every_metric_of_the_test_loop_has_a_name() -> None:
    metrics = LocalizationMetrics()
    metrics.update(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), torch.ones(1), torch.ones(1))
    assert set(metrics.compute()) <= set(wording.METRICS)


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_metrics_without_a_number_are_a_dash(value: float | None) -> None:
    keys = [*wording.METRICS, "my_metric"]
    found = page(metrics=dict.fromkeys(keys, value), curve=None, gallery=())
    numbers = [t for t in found.texts("dd") if t == "–"]  # noqa: RUF001
    cells = [t for t in found.texts("td") if t == "–"]  # noqa: RUF001
    assert len(numbers) == 3
    assert len(cells) == len(keys) - 3 + 1  # pixel_f1 has a bar too
    assert not [text for text in found.texts("main") if re.search(r"\b(nan|None|inf)\b", text)]


def test_verdict_compares_with_the_better_blind_map() -> None:
    def verdict(**metrics: float) -> str:
        return wording.verdict(dict(metrics))

    assert "0.600" in verdict(pixel_f1=0.6, empty_f1=0.0, full_f1=0.21)
    assert "is better than" in verdict(pixel_f1=0.6, empty_f1=0.0, full_f1=0.21)
    assert "is not better than" in verdict(pixel_f1=0.2, empty_f1=0.0, full_f1=0.21)
    assert "is not better than" in verdict(pixel_f1=0.0, empty_f1=0.0)
    assert verdict(pixel_f1=0.6) == verdict(full_f1=0.6) == verdict(pixel_f1=math.nan) == ""


def test_bars_are_as_long_as_their_f1() -> None:
    bars = [s["style"] for s in page().all("span") if s.get("class") == "bar"]
    assert bars == ["width: 62.2%", "width: 0.0%", "width: 21.0%"]


def test_curve_is_drawn_described_and_tabulated() -> None:
    found = page()
    assert len(found.all("svg")) == 1
    assert any(d.get("role") == "img" and d["aria-label"] for d in found.all("div"))
    assert "The highest is 0.600 at 0.5" in " ".join(found.texts("figcaption"))
    assert "0.75 0.300" in [re.sub(r"(?<=5)(?=0\.)", " ", text) for text in found.texts("tr")]
    assert "flag everything" in found.texts("text")


def test_page_without_curve_gallery_or_metrics_still_stands() -> None:
    found = page(metrics={}, curve=None, gallery=(), settings={}, versions={})
    assert not found.all("svg")
    assert not found.all("img")
    links = [a["href"][1:] for a in found.all("a")]
    assert set(links) <= {attrs.get("id") for _, attrs in found.elements}
    assert "threshold" not in links


def test_curve_of_gaps_has_no_best_point() -> None:
    found = page(curve=([0.25, 0.5], [math.nan, math.nan]))
    assert "highest" not in " ".join(found.texts("figcaption"))
    one_gap = page(curve=([0.25, 0.5], [math.nan, 0.5]))
    assert "The highest is 0.500 at 0.5" in " ".join(one_gap.texts("figcaption"))


def test_page_can_be_read_and_walked_without_sight() -> None:
    found = page()
    assert found.all("html")[0]["lang"] == "en"
    assert found.texts("title") == ["A run"]
    assert [len(found.all(tag)) for tag in ("h1", "main", "nav")] == [1, 1, 1]
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in found.all("a")} <= set(ids)
    assert {s["aria-labelledby"] for s in found.all("section")} <= set(ids)
    assert all(th.get("scope") in ("row", "col") for th in found.all("th"))


def test_settings_are_flattened_to_dotted_names() -> None:
    rows = [text.replace(" ", "") for text in page().texts("tr")]
    assert {"seed0", "data.size224", "data.sources['a','b']", "torch2.10"} <= set(rows)


def test_equal_reports_give_equal_bytes(tmp_path: Path) -> None:
    write_report(report(), tmp_path / "one.html")
    write_report(report(gallery=report().gallery[::-1]), tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(provenance.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_report(report(), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_svg_has_no_header_date_or_metadata() -> None:
    svg = plots.f1_curve_svg([0.1, 0.9], [0.5, 0.2], baseline=0.95)
    assert svg.startswith("<svg")
    assert svg.endswith("</svg>")
    assert "<metadata" not in svg
    assert svg == plots.f1_curve_svg([0.1, 0.9], [0.5, 0.2], baseline=0.95)
