import csv
import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from boxpromptiml import Localizer
from boxpromptiml.cli import main
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.predictions import read_rows
from boxpromptiml.io import images, sandbox
from boxpromptiml.io.files import locked
from boxpromptiml.io.map_files import read_map
from tests.helpers.commands import Command
from tests.helpers.models import CALIBRATION, SPECS, make_network, save_student


def run(checkpoint: Path, out: Path, *inputs: object, **options: object) -> int:
    more = [f"--{name}={value}" for name, value in options.items()]
    paths = [str(one) for one in inputs]
    where = [f"--checkpoint={checkpoint}", f"--out={out}"]
    return main(["localize", *where, "--images", *paths, *more])


@pytest.mark.parametrize("mode", ["native", "resize"])
def test_python_and_command_line_agree(
    tmp_path: Path, photos: Path, mode: Literal["resize", "native"]
) -> None:
    checkpoint = save_student(tmp_path / "s.ckpt", mode)
    assert run(checkpoint, tmp_path / "out", photos) == 0
    localizer = Localizer.load(checkpoint)
    rows = [json.loads(x) for x in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert sorted(row["name"] for row in rows) == ["a", "b", "sub/c"]
    for row in rows:
        prob = localizer(row["path"])
        assert prob.dtype == np.float32
        assert prob.shape == (row["height"], row["width"])
        stored = read_map(tmp_path / "out" / "prob" / f"{row['name']}.png").prob
        np.testing.assert_allclose(stored, prob, atol=1e-3)
        mask = images.read_mask(tmp_path / "out" / "mask" / f"{row['name']}.png")
        assert row["area"] == pytest.approx(mask.mean(), abs=1e-6)
        assert (tmp_path / "out" / "overlay" / f"{row['name']}.jpg").is_file()
    with (tmp_path / "out/predictions.csv").open() as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == [row["name"] for row in rows]


def test_bad_inputs_are_listed_once_and_good_ones_are_as_without_them(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    assert run(checkpoint, tmp_path / "clean", photos, batch_size=3) == 0
    (photos / "bad.jpg").write_bytes((photos / "a.jpg").read_bytes()[:300])
    (photos / "text.png").write_text("hello")
    assert run(checkpoint, tmp_path / "mixed", photos, tmp_path / "gone.jpg", batch_size=3) == 3
    rows = [json.loads(x) for x in (tmp_path / "mixed/errors.jsonl").read_text().splitlines()]
    assert sorted(Path(row["path"]).name for row in rows) == ["bad.jpg", "gone.jpg", "text.png"]
    for clean in (tmp_path / "clean" / "prob").rglob("*.png"):
        other = tmp_path / "mixed" / clean.relative_to(tmp_path / "clean")
        difference = np.abs(
            images.read_image(clean)[0].astype(int) - images.read_image(other)[0].astype(int)
        )
        assert difference.max() <= 1


def test_nothing_to_do_and_wrong_checkpoints_are_errors(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").mkdir()
    assert run(checkpoint, tmp_path / "out", tmp_path / "none") == 1
    assert run(photos / "a.jpg", tmp_path / "out", photos) == 1
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    assert run(tmp_path / "other.ckpt", tmp_path / "out", photos) == 1
    assert "boxpromptiml fit" in capsys.readouterr().err
    assert run(checkpoint, tmp_path / "out", photos, threshold=1.5) == 1


def test_csv_cells_are_no_formulas_and_names_never_clash(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    pixels = np.zeros((40, 40, 3), np.uint8)
    for name in ("=1+1.png", "x.png", "x.jpg", "X.bmp.png", "two\nlines.png", "\udcff.png"):
        images.write_png(folder / name, pixels)
    assert run(checkpoint, tmp_path / "out", folder) == 0
    with (tmp_path / "out" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len({row["name"].casefold() for row in rows}) == 6
    assert not any(row["name"].startswith("=") for row in rows)
    assert len(list((tmp_path / "out" / "prob").rglob("*.png"))) == 6


def test_tiled_command(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    assert run(checkpoint, tmp_path / "out", photos, tile="true", overlays="false") == 0
    assert len(list((tmp_path / "out" / "prob").rglob("*.png"))) == 3
    assert not (tmp_path / "out" / "overlay").exists()


EVIL_CHILD = """
import os, signal, time
from boxpromptiml.io import images, sandbox
real = images.read_image
def read_image(path, limits):
    if "killed" in path:
        os.kill(os.getpid(), signal.SIGKILL)
    if "slow" in path:
        time.sleep(100)
    if "greedy" in path:
        bytearray(3 * 10**9)
    return real(path, limits)
images.read_image = read_image
sandbox.serve()
"""


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
def test_what_breaks_the_decoder_costs_one_image(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b_killed", "b_slow", "sub/greedy"):
        (photos / f"{name}.jpg").write_bytes((photos / "a.jpg").read_bytes())
    monkeypatch.setattr(sandbox, "_PROGRAM", EVIL_CHILD)
    assert run(checkpoint, tmp_path / "out", photos, decode_seconds=1, batch_size=1) == 3
    rows = [json.loads(x) for x in (tmp_path / "out/errors.jsonl").read_text().splitlines()]
    assert {Path(row["path"]).stem: row["reason"] for row in rows} == {
        "b_killed": "crashed",
        "b_slow": "timeout",
        "greedy": "out_of_memory",
    }
    for bad in ("b_killed", "b_slow", "sub/greedy"):
        (photos / f"{bad}.jpg").unlink()
    assert run(checkpoint, tmp_path / "clean", photos, isolate="false", batch_size=1) == 0
    found, expected = contents(tmp_path / "out" / "prob"), contents(tmp_path / "clean" / "prob")
    assert found == expected
    assert found.keys() == {"a.png", "b.png", "sub/c.png"}


def test_isolated_or_not_gives_the_same_bytes(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "text.png").write_text("hello")
    for name, isolate in (("here", "false"), ("there", "true")):
        assert run(checkpoint, tmp_path / name, photos, isolate=isolate) == 3
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert len(contents(tmp_path / "here")) == 3 * 3 + 5  # the tables, the lock and the mark


def test_nonsense_limits_are_refused(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    for seconds in ("0", "-1", "1e7"):
        assert run(checkpoint, tmp_path / "out", photos, decode_seconds=seconds) == 1


def waits_at_z() -> None:
    """In the new process: the decoder's child never finishes z.jpg."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    sandbox._PROGRAM = EVIL_CHILD.replace("slow", "z.jpg")


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_finished_and_leaves_no_child(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "z.jpg").write_bytes((photos / "a.jpg").read_bytes())
    words = [f"--checkpoint={checkpoint}", f"--out={tmp_path / 'out'}", "--batch_size=1"]
    job = Command(["boxpromptiml", "localize", *words, f"--images={photos}"], waits_at_z)
    while len(list((tmp_path / "out").rglob("overlay/**/*.jpg"))) < 3:
        assert job.alive
        time.sleep(0.05)
    time.sleep(0.3)  # the child has the last image now
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    job.signal(signal.SIGINT)
    assert job.wait(60).status == 130
    assert len(children) == 1
    assert not Path(f"/proc/{children[0]}").exists()
    assert len((tmp_path / "out/predictions.jsonl").read_text().splitlines()) == 3


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def times(out: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (out / "prob").rglob("*.png")}


def test_a_second_run_localizes_what_is_new_or_changed(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(checkpoint, out, photos) == 0
    before, rows = times(out), lines(out / "predictions.jsonl")
    (photos / "b.jpg").write_bytes((photos / "sub" / "c.jpg").read_bytes())
    (photos / "new.jpg").write_bytes((photos / "a.jpg").read_bytes())
    assert run(checkpoint, out, photos) == 0
    assert "4 localized (2 were there already), 0 rejected" in capsys.readouterr().out
    after, again = times(out), lines(out / "predictions.jsonl")
    assert {name for name in before if after[name] == before[name]} == {"a", "c"}
    assert [row["name"] for row in again] == ["a", "b", "sub/c", "new"]
    assert (again[0], again[2]) == (rows[0], rows[2])
    assert again[1]["sha256"] == rows[2]["sha256"]


def test_what_cannot_be_read_any_more_keeps_no_result(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(checkpoint, out, photos) == 0
    (photos / "a.jpg").write_text("no image any more")
    assert run(checkpoint, out, photos) == 3
    assert set(read_rows(out)) == {"b", "sub/c"}
    assert "a.jpg" not in (out / "predictions.csv").read_text()
    assert not [path for path in out.rglob("a.*") if path.is_file()]
    (photos / "b.jpg").unlink()  # or its disk is away
    assert run(checkpoint, out, photos / "b.jpg", photos / "sub") == 3
    assert set(read_rows(out)) == {"b", "sub/c"}


def test_maps_that_were_cut_or_linked_are_made_again(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(checkpoint, out, photos) == 0
    before = contents(out)
    (tmp_path / "elsewhere.png").write_bytes((out / "prob" / "b.png").read_bytes())
    for file, harm in (("prob/a.png", "cut"), ("mask/b.png", "emptied"), ("prob/b.png", "linked")):
        if harm == "linked":
            (out / file).unlink()
            (out / file).symlink_to(tmp_path / "elsewhere.png")
        else:
            os.truncate(out / file, 60 if harm == "cut" else 0)
    assert run(checkpoint, out, photos) == 0
    assert contents(out) == before
    assert not (out / "prob" / "b.png").is_symlink()


def test_rows_of_names_that_are_not_utf8_are_read_back(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / os.fsdecode(b"\xff.jpg")).write_bytes((photos / "a.jpg").read_bytes())
    out = tmp_path / "out"
    assert run(checkpoint, out, photos) == 0
    assert main(["info", str(out)]) == 0
    assert run(checkpoint, out, photos) == 0
    assert "(4 were there already)" in capsys.readouterr().out


def test_an_edited_row_is_localized_again(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(checkpoint, out, photos) == 0
    table = out / "predictions.jsonl"
    first, *rest = table.read_text().splitlines(keepends=True)
    edited = re.sub(r'"image_score": [^,]+', '"image_score": NaN', first)
    table.write_text("".join([edited, *rest]))
    assert run(checkpoint, out, photos) == 0
    assert sorted(table.read_text().splitlines(keepends=True)) == sorted([first, *rest])


@pytest.mark.parametrize(
    "other",
    [
        {"threshold": 0.3},
        {"tile": "true"},
        {"flips": "true"},
        {"segmenter.name": "slic", "segmenter.segments": 9},
    ],
)
def test_other_settings_localize_again(
    checkpoint: Path, photos: Path, tmp_path: Path, other: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    assert run(checkpoint, out, photos / "a.jpg") == 0
    before = times(out)
    assert run(checkpoint, out, photos / "a.jpg", **other) == 0
    assert times(out) != before
    assert len(lines(out / "predictions.jsonl")) == 1


def test_missing_outputs_are_made_again(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(checkpoint, out, photos) == 0
    expected = contents(out)
    for kind in ("prob/a.png", "mask/b.png", "overlay/sub/c.jpg"):
        (out / kind).unlink()
    assert run(checkpoint, out, photos) == 0
    assert {k: v for k, v in contents(out).items() if "/" in k} == {
        k: v for k, v in expected.items() if "/" in k
    }


def test_another_source_gets_another_name_and_earlier_rows_stay(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(checkpoint, out, photos) == 0
    rows = lines(out / "predictions.jsonl")
    images.write_png(tmp_path / "other" / "a.png", np.zeros((40, 40, 3), np.uint8))
    assert run(checkpoint, out, tmp_path / "other") == 0
    again = lines(out / "predictions.jsonl")
    assert again[:3] == rows
    assert (again[3]["name"], again[3]["path"]) == ("a_png", str(tmp_path / "other" / "a.png"))
    with (out / "predictions.csv").open() as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == ["a", "b", "sub/c", "a_png"]


def test_a_torn_row_and_rows_that_lead_out_are_passed_over(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(checkpoint, out, photos) == 0
    rows = (out / "predictions.jsonl").read_text().splitlines()
    evil = rows[1].replace('"name": "b"', '"name": "../../evil"')
    images.write_png(tmp_path / "evil.png", np.zeros((9, 9), np.uint8))
    (out / "predictions.jsonl").write_text("\n".join([rows[0], evil, "[1]", rows[2][:50]]))
    assert run(checkpoint, out, photos) == 0
    names = [row["name"] for row in lines(out / "predictions.jsonl")]
    assert sorted(names) == ["a", "b", "sub/c"]


def test_arguments_that_yield_nothing_are_listed(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = [str(photos / "*.nef"), "https://host/x.jpg"]
    assert run(checkpoint, tmp_path / "out", *nothing, photos) == 3
    assert [row["path"] for row in lines(tmp_path / "out" / "errors.jsonl")] == nothing
    assert "3 localized, 2 rejected" in capsys.readouterr().out
    assert run(checkpoint, tmp_path / "none", *nothing) == 1
    assert "no file matches" in capsys.readouterr().err


def test_a_folder_is_localized_by_one_job_at_a_time(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path / "out"):
        assert run(checkpoint, tmp_path / "out", photos) == 1
    assert "another job is writing into this folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_job_continues_where_it_was(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        (photos / f"d{number}.jpg").write_bytes((photos / "a.jpg").read_bytes())
    out = tmp_path / "out"
    words = [f"--checkpoint={checkpoint}", f"--out={out}", "--batch_size=1", f"--images={photos}"]
    job = Command(["boxpromptiml", "localize", *words])
    table = out / "predictions.jsonl"
    while not table.exists() or table.read_text().count("\n") < 3:
        assert job.alive
        time.sleep(0.01)
    job.kill()
    job.wait()
    made = table.read_text().count("\n")
    (out / "prob" / ".0123456789abcdef.1.tmp").touch()  # as the kill may leave
    assert run(checkpoint, out, photos) == 0
    assert f"9 localized ({made} were there already)" in capsys.readouterr().out
    assert sorted(row["name"] for row in lines(table)) == sorted(
        ["a", "b", "sub/c", *(f"d{number}" for number in range(6))]
    )
    assert not list(out.rglob("*.tmp"))


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    """A checkpoint with a calibration whose thresholds lie among its probabilities."""
    network, spec = make_network(SPECS["student"]), SPECS["student"]
    path = tmp_path / "calibrated.safetensors"
    write_safetensors(path, network, replace(spec, calibration=CALIBRATION).to_dict())
    return path


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_a_false_alarm_rate_gives_the_thresholds(
    calibrated: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(calibrated, out, photos, fpr=0.1, isolate="false") == 0
    for row in rows_of(out):
        assert (row["threshold"], row["fpr"], row["image_threshold"]) == (0.2, 0.1, 0.7)
        assert row["calibrated"] is True
        mask = images.read_mask(out / "mask" / f"{row['name']}.png")
        np.testing.assert_array_equal(mask, Localizer.load(calibrated)(row["path"]) > 0.2)
    with (out / "predictions.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert {(row["fpr"], row["image_threshold"], row["calibrated"]) for row in table} == {
        ("0.1", "0.7", "True")
    }


def test_the_rate_of_other_thresholds_is_said_where_it_is_known(
    calibrated: Path, checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    def first(weights: Path, **options: object) -> dict[str, Any]:
        assert run(weights, tmp_path / "out", photos / "a.jpg", isolate="false", **options) == 0
        return rows_of(tmp_path / "out")[0]

    assert first(calibrated, threshold=0.6)["fpr"] == pytest.approx(0.01)
    assert first(calibrated, threshold=0.95)["fpr"] is None
    assert first(calibrated)["threshold"] == 0.4  # the checkpoint's own
    assert first(calibrated, threshold=0.6, tile=True)["fpr"] is None
    assert first(calibrated, threshold=0.6)["image_threshold"] is None
    plain = first(checkpoint)
    assert (plain["fpr"], plain["calibrated"]) == (None, False)


def test_the_image_score_is_the_calibrated_one(
    calibrated: Path, photos: Path, tmp_path: Path
) -> None:
    localizer = Localizer.load(calibrated)
    plain = replace(localizer, spec=replace(localizer.spec, calibration=None))
    image = images.read_image(photos / "a.jpg")[0]
    for tile in (False, True):
        raw = plain.localize([image], tile)[0].score
        expected = 1 / (1 + np.exp(-(np.log(raw / (1 - raw)) / 2 - 1)))
        assert localizer.localize([image], tile)[0].score == pytest.approx(expected, abs=1e-5)
    assert run(calibrated, tmp_path / "out", photos / "a.jpg", isolate="false") == 0
    score = localizer.localize([image])[0].score
    assert rows_of(tmp_path / "out")[0]["image_score"] == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fpr": 0.5}, "--fpr: a false-alarm rate of 0.5 is not known: measured on 50000 pixels"),
        ({"fpr": 0.0}, "--fpr: a false-alarm rate of 0 is not known"),
        ({"fpr": 0.01, "threshold": 0.5}, "--threshold and --fpr: give one of them"),
        ({"fpr": 0.01, "tile": "true"}, "--fpr: the false-alarm rates are those of maps without"),
        ({"fpr": 0.01, "segmenter.name": "slic"}, "--fpr: the false-alarm rates are those of maps"),
    ],
)
def test_rates_that_are_not_known_are_one_line(
    calibrated: Path, photos: Path, tmp_path: Path, options: dict[str, object], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(calibrated, tmp_path / "out", photos, isolate="false", **options) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_rates_of_images_that_are_not_known_are_left_out(
    calibrated: Path, checkpoint: Path, photos: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(calibrated, tmp_path / "out", photos / "a.jpg", fpr=0.01, isolate="false") == 0
    assert "no image_threshold: a false-alarm rate of 0.01 is not known" in capsys.readouterr().err
    assert rows_of(tmp_path / "out")[0]["image_threshold"] is None
    assert run(checkpoint, tmp_path / "other", photos, fpr=0.01, isolate="false") == 1
    assert "measure them on validation images with `boxpromptiml calib" in capsys.readouterr().err


def test_masks_of_somebody_else_are_not_replaced(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "data" / "mask" / "a.png"
    truth.parent.mkdir(parents=True)
    truth.write_bytes(b"drawn by hand")
    assert run(checkpoint, tmp_path / "data", photos) == 1
    assert "name another folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["mask", "a.png"]
