import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from defusedxml import ElementTree
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from boxpromptiml.visualization import plots
from boxpromptiml.visualization.plots import Condition
from tests.helpers.approx import approx

NAN = math.nan
CURVES = {
    "_hidden $\\frac": [(0.1, 0.2), (0.5, NAN), (0.9, 0.4)],
    "<script>x</script>": [(0.1, 0.3), (0.9, 0.1)],
    "n" * 200: [(0.0, 1.0), (1.0, 0.0)],
}
HISTORY = {"train/loss": [(0, 2.0), (1, 1.0)], "val/pixel_f1": [(1, 0.5)]}
CONDITIONS = [
    Condition("none", None, 0.6, 0.5, 0.7),
    Condition("jpeg", 50.0, 0.3, 0.2, 0.4),
    Condition("jpeg", 90.0, 0.5, 0.4, 0.6),
    Condition("noise", 3.0, NAN, NAN, NAN),
    Condition("rescale", 0.25, 0.1, NAN, NAN),
    Condition("weibo", None, 0.45, 0.35, 0.55),
]


def figures() -> dict[str, Figure]:
    return {
        "threshold": plots.threshold_figure(CURVES, 0.2),
        "high": plots.threshold_figure({"one": CURVES["n" * 200]}, 0.95),
        "precision_recall": plots.precision_recall_figure(CURVES),
        "roc": plots.roc_figure(CURVES),
        "training": plots.training_figure(HISTORY, "score"),
        "robustness": plots.robustness_figure(CONDITIONS, 0.6),
        "empty": plots.robustness_figure([]),
        "no_curves": plots.roc_figure({}),
    }


@pytest.mark.parametrize("name", list(figures()))
def test_equal_figures_give_equal_files_without_date_or_random_ids(
    name: str, tmp_path: Path
) -> None:
    first = plots.save_figure(figures()[name], tmp_path / "a" / "v1.5 plot")
    second = plots.save_figure(figures()[name], tmp_path / "b" / "v1.5 plot")
    assert [path.name for path in first] == ["v1.5 plot.png", "v1.5 plot.svg"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    ElementTree.fromstring(first[1].read_text())
    assert "<dc:date>" not in first[1].read_text()
    pixels = np.asarray(Image.open(first[0]).convert("RGB"))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels.std() > 1  # something is drawn


def test_svgs_stand_together_in_one_page() -> None:
    texts = [plots.figure_svg(figure, f"p-{name}") for name, figure in figures().items()]
    ids = [found for text in texts for found in re.findall(r'\sid="([^"]+)"', text)]
    assert len(ids) == len(set(ids)) > 50
    for text in texts:
        ElementTree.fromstring(text)
        assert text.startswith("<svg ")
        own = set(re.findall(r'\sid="([^"]+)"', text))
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
        assert used <= own
        assert not re.search(r'(?:href|src)="(?!#)', text.replace("xlink:href", "href"))
        assert "<script" not in text
    with pytest.raises(ValueError, match="plain name"):
        plots.figure_svg(figures()["roc"], 'a" onload="x')


def test_curves_are_drawn_as_given_and_never_look_alike() -> None:
    (axes,) = plots.threshold_figure(CURVES).axes
    for line, points in zip(axes.get_lines(), CURVES.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.array(points))
    many = {str(n): [(0.0, n / 30), (1.0, n / 30)] for n in range(28)}
    (axes,) = plots.threshold_figure(many).axes
    lines: list[Any] = [*axes.get_lines()]
    looks = {(to_hex(x.get_color()), x.get_marker(), str(x._dash_pattern)) for x in lines}
    assert len(looks) == 28
    assert len({(to_hex(x.get_color()), x.get_marker()) for x in lines[:7]}) == 7


def test_legend_shows_any_name_as_it_is() -> None:
    (axes,) = plots.threshold_figure(CURVES).axes
    legend = axes.get_legend()
    assert legend is not None
    shown = [text.get_text().strip() for text in legend.get_texts()]
    assert shown[:2] == list(CURVES)[:2]
    assert len(shown[2]) == 40
    svg = plots.figure_svg(plots.threshold_figure(CURVES))
    assert "_hidden $\\frac" in svg
    assert "&lt;script&gt;" in svg


def test_robustness_has_a_panel_a_kind_with_worse_images_to_the_right() -> None:
    figure = plots.robustness_figure(CONDITIONS, 0.6)
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 4
    jpeg, noise, rescale, networks = figure.axes
    assert jpeg.get_xlim()[0] > jpeg.get_xlim()[1]
    assert rescale.get_xlim()[0] > rescale.get_xlim()[1]
    assert noise.get_xlim()[0] < noise.get_xlim()[1]
    np.testing.assert_array_equal(jpeg.get_lines()[0].get_xydata(), [(50, 0.3), (90, 0.5)])
    assert [label.get_text() for label in networks.get_xticklabels()] == ["Weibo"]
    for axes in figure.axes:
        assert axes.get_ylim() == (0, approx(1.12 * 0.7))
        clean = [x for x in axes.get_lines() if np.asarray(x.get_ydata()).tolist() == [0.6, 0.6]]
        assert len(clean) == 1


def test_robustness_shows_degradations_of_others() -> None:
    own = [plots.Condition("mylab.grey", level, 0.4, 0.3, 0.5) for level in (0.9, 0.2)]
    *_, axes = plots.robustness_figure([*CONDITIONS, *own]).axes[:4]
    assert axes.get_title() == "mylab.grey"
    np.testing.assert_array_equal(axes.get_lines()[0].get_xydata(), [(0.2, 0.4), (0.9, 0.4)])


def test_training_curves_are_named_and_losses_start_at_zero() -> None:
    (axes,) = plots.training_figure({"train/loss": [(1, 2.0), (2, 1.0)]}, "loss").axes
    assert axes.get_ylabel() == "train/loss"
    assert axes.get_ylim()[0] == 0
    both = {"train/loss": [(1, -2.0)], "val/loss": [(1, 3.0)]}
    (axes,) = plots.training_figure(both, "loss").axes
    assert len(axes.get_lines()) == 2
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("loss", "epoch")
    assert axes.get_ylim()[0] < -2
