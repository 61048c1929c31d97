import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from boxpromptiml import Localizer
from boxpromptiml.cli import main
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.inference.localize import find_inputs, name_inputs
from boxpromptiml.inference.maps import Answer, tiled_map
from boxpromptiml.io import images, sandbox
from boxpromptiml.models.fusion import FusionConfig
from boxpromptiml.models.inputs import NetworkInput, sigmoid
from boxpromptiml.models.student import StudentConfig
from boxpromptiml.tasks.distill import DistillTask


def save_student(path: Path, fit: str = "native") -> Path:
    """A checkpoint as `fit` writes it, of random weights."""
    seed_everything(0, verbose=False)
    config = StudentConfig(
        backbone="mobilenetv3_small_050", fusion=FusionConfig(width=16, prototypes=8)
    )
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(DistillTask(config, NetworkInput(fit, (64, 64))))
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_student(tmp_path_factory.mktemp("student") / "student.ckpt")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for name, size in {"a.jpg": (40, 60), "b.jpg": (40, 60), "sub/c.jpg": (90, 33)}.items():
        images.write_jpeg(folder / name, rng.integers(0, 256, (*size, 3), dtype=np.uint8), 90)
    return folder


def run(checkpoint: Path, out: Path, *inputs: object, **options: object) -> int:
    more = [f"--{name}={value}" for name, value in options.items()]
    paths = [str(one) for one in inputs]
    where = [f"--checkpoint={checkpoint}", f"--out={out}"]
    return main(["localize", *where, "--images", *paths, *more])


@pytest.mark.parametrize("fit", ["native", "resize"])
def test_python_and_command_line_agree(tmp_path, photos, fit):
    checkpoint = save_student(tmp_path / "s.ckpt", fit)
    assert run(checkpoint, tmp_path / "out", photos) == 0
    localizer = Localizer.load(checkpoint)
    rows = [json.loads(x) for x in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert sorted(row["name"] for row in rows) == ["a", "b", "sub/c"]
    for row in rows:
        prob = localizer(row["path"])
        assert prob.dtype == np.float32
        assert prob.shape == (row["height"], row["width"])
        levels = images.read_image(tmp_path / "out" / "prob" / f"{row['name']}.png")[0][..., 0]
        np.testing.assert_allclose(levels / 255, prob, atol=0.5 / 255 + 1e-3)
        mask = images.read_mask(tmp_path / "out" / "mask" / f"{row['name']}.png")
        assert row["area"] == pytest.approx(mask.mean(), abs=1e-6)
        assert (tmp_path / "out" / "overlay" / f"{row['name']}.jpg").is_file()
    with (tmp_path / "out/predictions.csv").open() as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == [row["name"] for row in rows]


def test_one_or_many_paths_or_arrays(checkpoint, photos):
    localizer = Localizer.load(str(checkpoint))
    array, _ = images.read_image(photos / "a.jpg")
    one = localizer(array)
    many = localizer([photos / "a.jpg", array])
    np.testing.assert_allclose(many[0], one, atol=1e-5)
    np.testing.assert_allclose(many[1], one, atol=1e-5)
    with pytest.raises(UserError, match="uint8"):
        localizer(array.astype(np.float32))
    with pytest.raises(RejectedInput):
        localizer(photos / "none.jpg")


def test_bad_inputs_are_listed_once_and_good_ones_are_as_without_them(checkpoint, photos, tmp_path):
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


def test_nothing_to_do_and_wrong_checkpoints_are_errors(checkpoint, photos, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    assert run(checkpoint, tmp_path / "out", tmp_path / "none") == 1
    assert run(photos / "a.jpg", tmp_path / "out", photos) == 1
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    assert run(tmp_path / "other.ckpt", tmp_path / "out", photos) == 1
    assert "boxpromptiml fit" in capsys.readouterr().err
    assert run(checkpoint, tmp_path / "out", photos, threshold=1.5) == 1


def test_csv_cells_are_no_formulas_and_names_never_clash(checkpoint, tmp_path):
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


def test_globs_folders_and_missing_paths(tmp_path, photos):
    patterns = [str(photos / "*"), str(photos), str(photos / "no.jpg")]
    named = name_inputs(find_inputs(patterns, tmp_path / "out"))
    assert sorted(named) == ["a", "b", "no", "sub/c"]
    assert sorted(name_inputs(find_inputs(patterns, photos / "sub"))) == ["a", "b", "no"]


def brightness(image):
    """A network whose logit is the brightness of its own pixel."""
    logits = image.mean(1, keepdims=True)
    return Answer(logits, logits.max((1, 2, 3)))


@pytest.mark.parametrize("size", [(64, 64), (65, 200), (20, 30), (128, 97)])
def test_tiles_cover_everything_without_seams(size):
    image = np.random.default_rng(0).random((3, *size), np.float32)
    prob, score = tiled_map(brightness, image, (64, 64))
    assert prob.dtype == np.float32
    np.testing.assert_allclose(prob, sigmoid(image.mean(0)), atol=1e-6, rtol=1e-5)
    assert score == pytest.approx(sigmoid(image.mean(0).max()), abs=1e-6)


def test_large_images_are_tiled_by_themselves(checkpoint, monkeypatch):
    import boxpromptiml.inference.localizer as module

    localizer = Localizer.load(checkpoint)
    image = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    tiled, whole = localizer(image, tile=True), localizer(image)
    assert np.abs(tiled - whole).max() > 0
    monkeypatch.setattr(module, "_MAX_WHOLE_PIXELS", 100 * 150 - 1)
    np.testing.assert_array_equal(localizer(image), tiled)


def test_a_missing_gpu_is_said(checkpoint):
    with pytest.raises(UserError, match=r"GPU|unknown"):
        Localizer.load(checkpoint, device="cuda" if not torch.cuda.is_available() else "none")


def test_tiled_command(checkpoint, photos, tmp_path):
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


def test_what_breaks_the_decoder_costs_one_image(checkpoint, photos, tmp_path, monkeypatch):
    for name in ("b_killed", "b_slow", "sub/greedy"):
        (photos / f"{name}.jpg").write_bytes((photos / "a.jpg").read_bytes())
    monkeypatch.setattr(sandbox, "_PROGRAM", EVIL_CHILD)
    assert run(checkpoint, tmp_path / "out", photos, decode_seconds=2, batch_size=1) == 3
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


def test_isolated_or_not_gives_the_same_bytes(checkpoint, photos, tmp_path):
    (photos / "text.png").write_text("hello")
    for name, isolate in (("here", "false"), ("there", "true")):
        assert run(checkpoint, tmp_path / name, photos, isolate=isolate) == 3
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert len(contents(tmp_path / "here")) == 3 * 3 + 3


def test_nonsense_limits_are_refused(checkpoint, photos, tmp_path):
    for seconds in ("0", "-1", "1e7"):
        assert run(checkpoint, tmp_path / "out", photos, decode_seconds=seconds) == 1


def test_an_interrupt_keeps_what_is_finished_and_leaves_no_child(checkpoint, photos, tmp_path):
    (photos / "z.jpg").write_bytes((photos / "a.jpg").read_bytes())
    waits = EVIL_CHILD.replace("slow", "z.jpg")
    program = f"""
import signal, sys
from boxpromptiml.io import sandbox
from boxpromptiml.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
sandbox._PROGRAM = {waits!r}
sys.exit(main(sys.argv[1:]))
"""
    words = [f"--checkpoint={checkpoint}", f"--out={tmp_path / 'out'}", "--batch_size=1"]
    command = [sys.executable, "-c", program, "localize", *words, f"--images={photos}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as job:
        while len(list((tmp_path / "out").rglob("overlay/**/*.jpg"))) < 3:
            assert job.poll() is None, job.stderr.read()
            time.sleep(0.05)
        time.sleep(0.3)  # the child has the last image now
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        job.send_signal(signal.SIGINT)
        assert job.wait(timeout=60) == 130
    assert len(children) == 1
    assert not Path(f"/proc/{children[0]}").exists()
    assert len((tmp_path / "out/predictions.jsonl").read_text().splitlines()) == 3
