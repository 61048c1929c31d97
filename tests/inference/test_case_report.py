"""The page of `localize --report`: what is marked and said, and that nothing can be injected."""

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxpromptiml.cli import main
from boxpromptiml.errors import RejectedInput
from boxpromptiml.inference.case_report import marking_limit, write_case_report
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.predictions import Prediction
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io import images
from boxpromptiml.io.file_details import FileDetails
from boxpromptiml.io.files import sha256_file, write_bytes
from boxpromptiml.io.map_files import encode_map
from boxpromptiml.io.sandbox import DirectDecoder
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import ProbArray
from tests.helpers.browser import needs_browser, open_page, start_chromium
from tests.helpers.models import CALIBRATION, SPECS, make_network

PLAIN = SPECS["student"]
CALIBRATED = replace(PLAIN, calibration=CALIBRATION)  # the strictest: 5 % score above 0.8
WEIGHTS = {"Weights": "student.safetensors", "SHA-256": "0" * 64}


def blobs(height: int = 60, width: int = 100) -> ProbArray:
    """A map with a large faint region at the top left, a small strong one and a speck."""
    prob = np.zeros((height, width), np.float32)
    prob[5:25, 10:40] = 0.6
    prob[40:46, 80:90] = 0.9
    prob[55, 50] = 1
    return prob


def predicted(out: Path, path: Path, prob: ProbArray, score: float, **more: float) -> Prediction:
    write_bytes(out / "prob" / f"{path.stem}.png", encode_map(prob))
    size, sha256 = (prob.shape[0], prob.shape[1]), sha256_file(path)
    row = Prediction(path.stem, str(path), *size, score, 0.5, 0.1, sha256, "", "made")
    return replace(row, **more)  # type: ignore[arg-type]


def photograph(folder: Path, name: str = "a.png", size: tuple[int, int] = (60, 100)) -> Path:
    rng = np.random.default_rng(0)
    images.write_png(folder / name, rng.integers(0, 256, (*size, 3), np.uint8))
    return folder / name


def page(out: Path, rows: list[Prediction], spec: ModelSpec = CALIBRATED, rejected: int = 0) -> str:
    path = write_case_report(out, rows, spec, WEIGHTS, DirectDecoder(), rejected)
    assert path == out / "case.html"
    return path.read_text()


def words(text: str) -> str:
    """What a reader sees."""
    without = re.sub(r"<(style|title)>.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(without).split())


def test_regions_are_ranked_with_share_and_score(tmp_path: Path) -> None:
    text = page(tmp_path, [predicted(tmp_path, photograph(tmp_path), blobs(), 0.9)])
    assert "2 regions marked" in words(text)
    assert "1 10 % 0.60 2 1 % 0.90 The file" in words(text)  # the speck is none
    assert text.count('class="over"') == 2
    (first, *_) = re.findall(r'class="over" d="M([\d,]+)L', text)
    assert first == "10,5"
    assert "The probability is above 80 %, which holds for 5 % of untouched" in words(text)
    assert "90 % probability that something in this image was manipulated" in words(text)
    assert "In all, 60 % of them were" in words(text)


@pytest.mark.parametrize(
    ("score", "more", "marked"),
    [
        (0.8, {}, False),  # not above the limit of 5 %
        (0.81, {}, True),
        (0.75, {"fpr": 0.1, "image_threshold": 0.7}, True),  # as --fpr 0.1 says
        (0.7, {"fpr": 0.1, "image_threshold": 0.7}, False),
    ],
)
def test_an_image_that_does_not_stand_out_carries_no_mark(
    tmp_path: Path, score: float, more: dict[str, float], marked: bool
) -> None:
    row = predicted(tmp_path, photograph(tmp_path), blobs(), score, **more)
    text = page(tmp_path, [row])
    assert ('class="over"' in text) == marked
    assert ("Nothing is marked." in words(text)) != marked


def test_of_a_large_photograph_it_says_that_no_mark_means_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = replace(CALIBRATED, input=NetworkInput("native"))
    row = predicted(tmp_path, photograph(tmp_path), blobs(), 0.5)
    says = "For a photograph of this size that says little."
    assert says not in words(page(tmp_path, [row], native))
    monkeypatch.setattr("boxpromptiml.inference.spec.MAX_WHOLE_PIXELS", 60 * 100 - 1)
    assert says in words(page(tmp_path, [row], native))
    assert says not in words(page(tmp_path, [replace(row, image_score=0.9)], native))


def test_the_limit_is_that_of_three_percent_where_it_was_measured() -> None:
    table = ((0.02, 0.9), (0.045, 0.7))  # 0.03 is half way, by the logarithm
    limit = marking_limit(replace(CALIBRATION, image_thresholds=table))
    assert limit is not None
    assert limit.fpr == 0.03
    assert limit.score == pytest.approx(0.8, abs=0.001)
    few = marking_limit(replace(CALIBRATION, image_thresholds=table, authentic=20))
    assert few is not None
    assert (few.score, few.fpr) == (0.9, 0.02)
    assert marking_limit(replace(CALIBRATION, image_thresholds=())) is None


def test_without_calibration_no_probability_is_claimed(tmp_path: Path) -> None:
    row = predicted(tmp_path, photograph(tmp_path), blobs(), 0.3)
    said = words(page(tmp_path, [row], PLAIN))
    assert "0.30 score between 0 and 1" in said
    assert "is no probability: the network has not been calibrated for such maps." in said
    assert "2 regions marked. Pixels are marked where the map is above 0.5" in said
    assert "its rate of false alarms was not measured" in said
    assert "Trained on allocation and location" in said


def test_pictures_and_outlines_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    text = page(tmp_path, [predicted(tmp_path, tmp_path / "a.jpg", blobs(), 0.9)])
    assert text.count('width="60" height="100"') == 2
    assert re.findall(r'class="over" d="M([\d,]+)L', text)[0] == "35,10"  # 5:25 from the right
    assert "turned upright as the file asks" in words(text)
    assert "orientation 6 not applied" not in text


def test_what_comes_from_a_file_is_escaped(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "<script>alert(1)</script>"
    name = "<img src=x onerror=alert(1)>\u202e.jpg"
    Image.fromarray(np.zeros((60, 100, 3), np.uint8)).save(tmp_path / name, exif=exif)
    text = page(tmp_path, [predicted(tmp_path, tmp_path / name, blobs(), 0.9)])
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "\u202e" not in text
    assert "<script>alert(1)</script>" in words(text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert re.findall(r'(?:src|href)="(?!data:|#)', text) == []


def test_several_images_are_listed_by_score_and_others_counted(tmp_path: Path) -> None:
    rows = [
        predicted(tmp_path, photograph(tmp_path, f"{name}.png"), blobs(), score)
        for name, score in (("low", 0.001), ("high", 0.9999), ("middle", 0.5))
    ]
    photograph(tmp_path, "middle.png", (60, 101))  # changed since
    said = words(page(tmp_path, rows, rejected=2))
    assert "high more than 99 % 2 regions low less than 1 % nothing Not on this page" in said
    assert f"changed while the page was made: {tmp_path / 'middle.png'} ." in said
    assert "2 files could not be read" in said


def test_an_image_whose_details_cannot_be_read_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def details(path: str) -> FileDetails:
        raise RejectedInput(path, "crashed", "the decoder has crashed")

    monkeypatch.setattr(DirectDecoder, "details", staticmethod(details))
    said = words(page(tmp_path, [predicted(tmp_path, photograph(tmp_path), blobs(), 0.9)]))
    assert "2 regions marked" in said
    assert "Details unreadable: crashed" in said
    assert "Not on this page" not in said


def test_the_command_shows_images_of_an_earlier_run_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "student.safetensors"
    write_safetensors(path, make_network(CALIBRATED), CALIBRATED.to_dict())
    for name in "ab":
        photograph(tmp_path / "photos", f"{name}.png")
    words_ = [f"--checkpoint={path}", f"--out={tmp_path / 'out'}", "--isolate=false", "--fpr=0.1"]
    assert main(["localize", f"--images={tmp_path / 'photos' / 'a.png'}", *words_]) == 0
    (tmp_path / "photos" / "c.png").write_text("no image")
    assert main(["localize", f"--images={tmp_path / 'photos'}", *words_, "--report"]) == 3
    assert f"{tmp_path / 'out' / 'case.html'}\n" in capsys.readouterr().out
    said = words((tmp_path / "out" / "case.html").read_text())
    assert {"a", "b"} <= set(re.findall(r"\b[ab]\b", said.partition("Image Probability")[2]))
    assert "1 file could not be read" in said
    assert "Run by torch, cpu, fp32" in said


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_runs_off_the_side_of_the_window(tmp_path: Path, width: int) -> None:
    long = "x" * 120 + ".png"
    rows = [
        predicted(tmp_path, photograph(tmp_path, name), blobs(), 0.9) for name in ("a.png", long)
    ]
    page(tmp_path, rows)
    with (
        start_chromium() as browser,
        open_page(browser, (tmp_path / "case.html").as_uri(), width) as shown,
    ):
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        for scheme in ("light", "dark"):
            shown.emulate_media(color_scheme=scheme)
            ground, ink = shown.evaluate(
                "['backgroundColor', 'color'].map(n => getComputedStyle(document.body)[n])"
            )
            sums = [sum(map(int, re.findall(r"\d+", value))) for value in (ground, ink)]
            assert (sums[0] > sums[1]) == (scheme == "light")
