"""The page as a browser and a screen reader get it: parsed, never searched as text."""

import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from boxpromptiml.metrics.bootstrap import Interval
from boxpromptiml.metrics.pixel import LocalizationMetrics
from boxpromptiml.metrics.results import Evaluation
from boxpromptiml.report.gallery import make_gallery
from boxpromptiml.report.page import render, write_report
from boxpromptiml.report.run import GroupTable
from boxpromptiml.report.text import METRICS
from boxpromptiml.report.training import BestEpoch, TrainingImages
from tests.helpers.report_pages import (
    HOSTILE,
    Page,
    entry,
    evaluation,
    full,
    gallery,
    plain,
    report,
    threshold_plot,
    training,
)

NAN = math.nan


def page(**changes: object) -> Page:
    return Page(render(report(**changes)))


def test_page_runs_and_fetches_nothing() -> None:
    found = Page(render(full()))
    tags = {tag for tag, _ in found.elements}
    banned = {"script", "link", "iframe", "object", "embed", "form", "base", "foreignobject"}
    assert not tags & banned
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


@pytest.mark.parametrize("text", [HOSTILE, "</style></svg>--><b>", "$x^$_{\\frac", "&amp;<bdo>"])
def test_hostile_names_stay_text(text: str) -> None:
    calm, found = Page(render(full())), Page(render(full(text)))
    drawn = ("g", "path", "use", "defs", "text", "clippath", "rect", "style", "tspan", "svg")
    structure = [
        [tag for tag, _ in one.elements if tag not in drawn]
        for one in (calm, found)  # a legend's box is as wide as its text
    ]
    assert structure[0] == structure[1]
    assert found.texts("title") == found.texts("h1") == [" ".join(text.split())]
    assert " ".join(text.split()) in found.texts("h4")
    assert len(found.all("style")) == len(calm.all("style"))


def test_marks_that_hide_or_turn_text_are_spelt_out() -> None:
    name = "photo\u202egnp.exe\n\x07\u2066x"
    (shown, *_) = page(gallery=gallery(entry(name))).texts("h4")
    assert shown == "photo\\u202egnp.exe\\u000a\\u0007\\u2066x"
    arabic = "صورة"  # an honest name stays as it is, and turns nothing around it
    found = page(gallery=gallery(entry(arabic)))
    assert found.texts("h4") == [arabic]
    assert arabic in found.texts("bdi")


def test_undecodable_names_can_be_written(tmp_path: Path) -> None:
    write_report(report(gallery=gallery(entry("caf\udce9"))), tmp_path / "report.html")
    assert "caf\\udce9" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_pictures_come_first_and_parts_without_data_are_left_out() -> None:
    everything = ["Images", "Summary", "Result", "Comparison of runs", "By group", "Curves"]
    everything += ["Pseudo-masks", "Settings", "Versions and checksums"]
    found = Page(render(full()))
    assert found.texts("h2") == found.texts("a")[: len(everything)] == everything
    found = page(scores={}, plots=(), gallery=gallery())
    assert (
        found.texts("h2") == found.texts("a") == ["Summary", "Settings", "Versions and checksums"]
    )
    assert found.answers()["Trained"] == "Not known: no manifest was found."
    assert not found.all("img")
    assert not found.all("svg")


def test_a_large_gallery_shows_six_rows_in_any_order_until_asked_for_all() -> None:
    entries = [entry(f"{n:02}", ((7 * n) % 10) / 10) for n in range(10)]
    found = page(gallery=gallery(*entries))
    names, rows = found.texts("h4"), found.all("article")
    leading = {
        order: {n for n, row in zip(names, rows, strict=True) if f"lead-{order}" in row["class"]}
        for order in ("worst", "best", "name")
    }
    assert leading["worst"] == set(names[:6])
    assert leading["best"] == set(names[-6:])
    assert leading["name"] == set(sorted(names)[:6])
    assert "all 10, not the first 6 only" in found.texts("label")
    assert not [i for i in page().all("input") if i["id"] == "every"]


def test_rows_are_worst_first_and_know_their_other_places() -> None:
    found = page()
    assert found.texts("h4") == ["bad", "middling", "good"]
    styles = [a["style"] for a in found.all("article")]
    assert [re.findall(r"\d+", style) for style in styles] == [["3", "0"], ["2", "2"], ["1", "1"]]
    assert "F1 0.100" in found.texts("article")[0]
    assert "IoU 0.053" in found.texts("article")[0]
    assert "1 of the 3 manipulated images have an F1 below 0.5." in found.texts("p")


def test_orders_and_filters_need_no_script() -> None:
    found = page(gallery=gallery(entry("a", 0.9), entry("b", 0.7), entry("c", 0.2, "removal")))
    radios = [i for i in found.all("input") if i["type"] == "radio"]
    assert {i["name"] for i in radios} == {"order", "kind"}
    assert [i["id"] for i in radios if "checked" in i] == ["order-worst", "kind-all"]
    style = found.texts("style")[0]
    for control in radios:
        if "checked" not in control:
            assert f"#{control['id']}:checked" in style
    labels = [text for text in found.texts("label") if "(" in text]
    assert labels == ["all (3)", "removal (1)", "splice (2)"]
    kinds = [a["class"].split()[1] for a in found.all("article")]
    assert kinds == ["kind-0", "kind-1", "kind-1"]


def test_one_kind_or_very_many_are_no_filter() -> None:
    many = [entry(str(number), 0.5, str(number)) for number in range(20)]
    for entries in ([entry("a"), entry("b")], many):
        inputs = page(gallery=gallery(*entries)).all("input")
        assert {i.get("name") for i in inputs if i["type"] == "radio"} == {"order"}


def test_authentic_images_come_by_their_flagged_fraction() -> None:
    wrong = [entry(name, math.nan, "", alarm) for name, alarm in (("x", 0.1), ("y", 0.4))]
    found = page(gallery=gallery(*wrong, entry("quiet", math.nan, "", 0.0), entry("forged")))
    assert found.texts("h4") == ["forged", "y", "x"]
    assert "flagged 40.0 %" in found.texts("article")[1]
    assert "nan" not in " ".join(found.texts("main"))
    assert any("2 of the 3 authentic images have flagged pixels" in t for t in found.texts("p"))


def test_metrics_have_human_names_intervals_and_counts() -> None:
    scores = {
        "pixel_f1": Interval(0.6218, 0.55, 0.7, 40),
        "false_alarm_pixels": Interval(0.034, 0.01, 0.06, 20),
        "my_metric": Interval(41, math.nan, math.nan, 0),
    }
    found = page(scores=scores)
    assert "Pixel F1" in found.texts("dt")
    assert "0.622 [0.550, 0.700]" in found.texts("dd")
    rows = found.texts("tr")
    fpr = r"Pixel FPR on authentic images .*20 images\.\s?3\.4 % \[1\.0, 6\.0\]$"
    assert any(re.match(fpr, text) for text in rows)
    assert "my_metric41" in [text.replace(" ", "") for text in rows]


def test_every_metric_of_the_test_loop_has_a_name() -> None:
    metrics = LocalizationMetrics()
    metrics.update(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), torch.ones(1), torch.ones(1))
    assert set(metrics.compute()) <= set(METRICS)


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_metrics_without_a_number_are_a_dash(value: float | None) -> None:
    keys = [*METRICS, "my_metric"]
    found = page(scores=plain(dict.fromkeys(keys, value)), plots=(), gallery=gallery())
    numbers = [t for t in found.texts("dd") if t == "–"]  # noqa: RUF001
    cells = [t for t in found.texts("td") if t == "–"]  # noqa: RUF001
    assert len(numbers) == 3
    assert len(cells) == len(keys) - 3 + 1  # pixel_f1 has a bar too
    assert not [text for text in found.texts("main") if re.search(r"\b(nan|None|inf)\b", text)]


def test_the_verdict_is_against_the_better_blind_map() -> None:
    def verdict(scores: Mapping[str, Interval]) -> str:
        return page(scores=scores).answers().get("How good", "")

    better = verdict(plain({"pixel_f1": 0.6, "empty_f1": 0.0, "full_f1": 0.154}))
    assert better == (
        "With a mean pixel F1 of 0.600 on manipulated images, this localizer is better than "
        "flagging nothing or everything (0.154)."
    )
    worse = verdict(plain({"pixel_f1": 0.2, "empty_f1": 0.0, "full_f1": 0.21}))
    assert "is not better than" in worse
    alone = verdict(plain({"pixel_f1": 0.0, "empty_f1": 0.0}))
    assert "is not better than flagging nothing (0.000)" in alone
    assert verdict(plain({"pixel_f1": 0.6})) == "Mean pixel F1 0.600 on manipulated images."
    assert verdict(plain({"full_f1": 0.6})) == verdict(plain({"pixel_f1": NAN})) == ""
    unsure = {"pixel_f1": Interval(0.25, 0.2, 0.3, 9), "full_f1": Interval(0.21, 0.2, 0.22, 9)}
    assert "is not clearly better than" in verdict(unsure)


def test_false_positive_rates_are_said() -> None:
    rates = {"false_alarm_pixels": 0.042, "false_alarm_images": 0.5}
    said = page(scores=plain(rates)).answers()["How good"]
    assert said == "On authentic images the pixel FPR is 4.2 % and the image FPR 50.0 %."


def test_how_sure_counts_the_groups_that_have_an_f1() -> None:
    def sure(found: Evaluation) -> str:
        return page(evaluation=found).answers()["How sure"]

    shared = sure(evaluation(rows=60, groups=30))
    assert "60 images with an F1, in 30 groups of images that share a source." in shared
    assert "too narrow" not in shared
    first, *rest = evaluation(rows=60, groups=30).rows
    lost = [replace(row, f1=NAN) if row.group == first.group else row for row in (first, *rest)]
    fewer = replace(evaluation(), rows=tuple(lost))
    assert sure(fewer).endswith("With only 29 groups they are too narrow.")
    own = sure(evaluation(rows=4))
    assert "over 4 images with an F1, where each image is its own group." in own


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "calm on calm (initialised from calm), trained for 3 of 5 epochs on 5 images of "
         "dataset “calm”: 3 manipulated (calm pseudo-masks), 2 authentic. Boxes: drawn by people. "
         "Best of 3 validations: epoch 2 (F1 0.400), whose weights are in best.ckpt."),
        ({"task": "DistillTask", "pretrained": None, "planned": 3},
         "Student on calm (random init), trained for 3 epochs on"),
        ({"task": "ImageLabelTask", "epochs": 0}, "WCBnet (image labels only) on calm"),
        ({"epochs": 0}, "trained for at most 5 epochs"),
        ({"best": BestEpoch(1, 0.25, 1)}, "Validated once, after epoch 1 (F1 0.250)."),
        ({"images": TrainingImages(Counter({"mask": 2, "label": 1}), Counter(), 0, (*"abc",))},
         "on 3 images of datasets “a”, “b” and “c”: 3 manipulated (2 ground-truth masks and "
         "1 image labels only), 0 authentic."),
        ({"images": TrainingImages(Counter({"box": 3}), Counter({"cam": 2, None: 1}), 0, ("a",))},
         "3 manipulated (filled boxes), 0 authentic. Boxes: from activation maps of a network "
         "trained on image labels (2) and of unrecorded origin (1)."),
    ],
)  # fmt: skip
def test_the_training_is_said_in_one_sentence(change: dict[str, Any], said: str) -> None:
    assert said in page(training=replace(training(), **change)).answers()["Trained"]


def test_what_was_scored_is_said() -> None:
    found = evaluation()
    counts = {"manipulated": 4, "authentic": 1000, "unknown": 2}
    odd = replace(
        found, metrics=found.metrics | {"images": counts, "preset": "mvss", "split": None}
    )
    assert page(evaluation=odd).answers()["Scored"] == (
        "best.ckpt on all images of dataset “set”: 4 manipulated, 1,000 authentic and 2 of unknown "
        "label. A pixel is flagged where its probability is above 0.5; scored by the rules of "
        "preset mvss."
    )


def test_the_lowest_group_is_named() -> None:
    def group(value: float, count: int) -> tuple[int, dict[str, Interval]]:
        return count, {"pixel_f1": Interval(value, NAN, NAN, count)}

    table = GroupTable("dataset", ("pixel_f1",), {"Low": group(0.3, 20), "High": group(0.9, 40)})
    said = page(groups=(table,), gallery=gallery()).answers()["Where it fails"]
    assert said == "By dataset, F1 is lowest for Low: 0.300, 20 images."


def test_many_images_are_said_to_be_a_choice() -> None:
    entries = [entry(f"m{n:04}", n / 1000) for n in range(1000)]
    wrong = [entry(f"a{n:04}", NAN, "", n / 1000) for n in range(500)]
    found = make_gallery([*entries, *wrong], lambda *_: (), limit=100)
    texts = page(gallery=found).texts("p")
    assert (
        "90 of the 1,000 manipulated images are shown: the 45 with the lowest F1, the 22 with the "
        "highest, and 23 of the others, drawn at random (seed 0)."
    ) in texts
    assert (
        "500 of the 1,000 manipulated images have an F1 below 0.5; in 1 of them no flagged pixel "
        "is correct."
    ) in texts
    assert (
        "499 of the 500 authentic images have flagged pixels; the 10 with most of them are shown. "
        "Largest fraction first."
    ) in texts


def test_bars_are_as_long_as_their_f1_and_ranges_lie_where_the_interval_is() -> None:
    scores = {"pixel_f1": Interval(0.5, 0.42, 0.6, 9), "full_f1": Interval(0.2, math.nan, 1, 9)}
    found = page(scores=scores, gallery=gallery())
    styles = {s["class"]: s["style"] for s in found.all("span") if s.get("class") == "range"}
    assert styles == {"range": "left: 42.0%; width: 18.0%"}
    bars = [s["style"] for s in found.all("span") if s.get("class") == "bar"]
    assert bars == ["width: 50.0%", "width: 20.0%"]


def test_curve_is_drawn_described_and_tabulated() -> None:
    found = page(gallery=gallery())
    assert len(found.all("svg")) == 1
    assert any(d.get("role") == "img" and d["aria-label"] for d in found.all("div"))
    assert "The highest is 0.600 at 0.5" in " ".join(found.texts("figcaption"))
    assert "0.75 0.300" in [re.sub(r"(?<=5)(?=0\.)", " ", text) for text in found.texts("tr")]
    assert "flag everything" in found.texts("text")


def test_page_can_be_read_and_walked_without_sight() -> None:
    found = Page(render(full()))
    assert found.all("html")[0]["lang"] == "en"
    assert [len(found.all(tag)) for tag in ("h1", "main", "nav", "title")] == [1, 1, 1, 1]
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in found.all("a")} <= set(ids)
    assert {s["aria-labelledby"] for s in found.all("section")} <= set(ids)
    assert all(th.get("scope") in ("row", "col") for th in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table"))
    assert all(img["alt"] for img in found.all("img"))
    scrolled = [d for d in found.all("div") if d.get("class") == "scroll"]
    assert all(d["tabindex"] == "0" and d["aria-label"] for d in scrolled)
    inputs = len(found.all("input"))
    assert inputs == sum("chip" in label.get("class", "") for label in found.all("label"))


def test_text_stands_out_from_its_ground_in_light_and_in_dark() -> None:
    """WCAG 2.1, 1.4.3: 4.5 to 1."""
    found = re.findall(r":root \{(.*?)\}", page().texts("style")[0], re.DOTALL)
    light, dark = (dict(re.findall(r"--([a-z]+): (#\w{6})", block)) for block in found)
    for scheme in (light, dark):
        inks = [scheme[name] for name in ("ink", "soft", "link", "better", "worse")]
        grounds = [scheme[name] for name in ("ground", "pale")]
        assert min(contrast(ink, ground) for ink in inks for ground in grounds) >= 4.5


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_settings_are_flattened_to_dotted_names() -> None:
    rows = [text.replace(" ", "") for text in page().texts("tr")]
    assert {"seed0", "data.size224", "data.sources['a','b']", "torch2.10"} <= set(rows)


def test_equal_reports_give_equal_bytes(tmp_path: Path) -> None:
    entries = [entry(name, 0.1 * n) for n, name in enumerate("abcde")]
    write_report(report(gallery=gallery(*entries)), tmp_path / "one.html")
    write_report(report(gallery=gallery(*entries[::-1])), tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_report(report(), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_precision_says_that_it_is_of_fewer_images() -> None:
    plot = replace(threshold_plot(), name="precision-recall")
    (caption,) = page(plots=(plot,), gallery=gallery()).texts("figcaption")
    assert "no precision: it is left out of the mean precision at that threshold" in caption


def test_plots_of_one_page_share_no_ids() -> None:
    plots = (threshold_plot(), threshold_plot(salt="roc"))
    ids = [attrs["id"] for _, attrs in page(plots=plots).elements if "id" in attrs]
    assert len(ids) == len(set(ids))
