"""Weights & Biases: the table of images, and the logger without a server or a key.

The logger's tests start processes, since wandb keeps its settings for a process.
"""

import atexit
import json
import logging
import os
import pty
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.util import Finalize
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import wandb
import yaml
from lightning.fabric.loggers.logger import _DummyExperiment
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from sklearn.metrics import f1_score

from boxpromptiml.cli import main
from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.data.dataset import DatasetItem, collate
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Header, write_manifest
from boxpromptiml.models.configs import WCBConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Box, Sample, Split
from boxpromptiml.segmenters.config import SegmenterConfig
from boxpromptiml.tasks.base import LocalizerTask
from boxpromptiml.tasks.distill import DistillTask
from boxpromptiml.tasks.image_label import ImageLabelTask
from boxpromptiml.tasks.wandb import COLUMNS, PatientWandbLogger, WandbImages, sweep_folder
from tests.helpers.commands import Ended, Words, run
from tests.helpers.training import STUDENT

SMALL = NetworkInput("resize", (64, 64))
# id, (H, W) stored, label, boxes: larger than 512, one pixel high, nobody's boxes
ODD: list[tuple[str, tuple[int, int], int | None, tuple[Box, ...] | None]] = [
    ("wide", (300, 1025), 1, (Box(100, 50, 1025, 290),)),
    ("flat", (1, 700), 1, (Box(20, 0, 60, 1),)),
    ("plain", (64, 96), 1, None),
    ("authentic", (601, 90), 0, ()),
    ("unlabelled", (50, 70), None, None),
]


class Recorder(WandbLogger):
    """Keeps what it is told to log; there is no run behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[str, int, dict[str, list[Any]]]] = []

    @property
    def experiment(self) -> Any:
        return _DummyExperiment()

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        pass

    def log_hyperparams(self, params: Any) -> None:
        pass

    def log_table(
        self,
        key: str,
        columns: Any = None,
        data: Any = None,
        dataframe: Any = None,
        step: Any = None,
    ) -> None:
        assert columns == COLUMNS
        assert wandb.Table(columns=columns, data=data).data == data  # wandb takes the types
        self.tables.append((key, step, {row[0]: row[1:] for row in data}))


def make_sample(
    root: Path,
    name: str,
    size: tuple[int, int],
    label: int | None,
    boxes: tuple[Box, ...] | None,
    split: Split = "val",
) -> Sample:
    rng = np.random.default_rng(len(name))
    mask = np.zeros(size, bool)
    mask[: -(-size[0] // 2), : size[1] // 3] = True
    images.write_png(root / f"{name}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    images.write_png(root / f"{name}_mask.png", mask.astype(np.uint8) * 255)
    trimap = np.where(mask, np.uint8(255), np.uint8(0))
    trimap[:, -(size[1] // 4) :] = 127
    images.write_png(root / f"{name}_pseudo.png", trimap)
    return Sample(
        id=name, dataset="odd", split=split, group=name, image=f"{name}.png", size=size,
        label=label, boxes=boxes, kind="splice" if name == "wide" else None,
        mask=f"{name}_mask.png" if label else None,
        pseudo_mask=f"{name}_pseudo.png" if boxes else None,
    )  # fmt: skip


def make_data(root: Path, samples: list[Sample], **settings: Any) -> LocalizationData:
    train = [make_sample(root, f"t{i}", (64, 96), 1, None, "train") for i in range(4)]
    write_manifest(root / "all.jsonl", Header(pseudo_root="."), [*samples, *train])
    given: dict[str, Any] = {
        "supervision": "mask", "input": SMALL, "batch_size": 4, "eval_batch_size": 3,
    }  # fmt: skip
    return LocalizationData([root / "all.jsonl"], [root / "all.jsonl"], **(given | settings))


def make_trainer(folder: Path, logger: Any, *callbacks: Callback, **settings: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder, accelerator="cpu", logger=logger, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), enable_checkpointing=False,
        **({"max_epochs": 1, "log_every_n_steps": 1} | settings),
    )  # fmt: skip


def mask_of(image: Any, name: str) -> npt.NDArray[np.uint8]:
    return np.asarray(image._masks[name]._val["mask_data"])


def evaluation_items(data: LocalizationData) -> Iterator[DatasetItem]:
    dataset: Any = data.val_dataloader().dataset
    return (dataset[position] for position in range(len(dataset)))


def at_median(task: LocalizerTask, data: LocalizationData, name: str = "plain") -> float:
    """Make the task flag about half of the pixels of one image, so that its map matters."""
    data.setup("validate")
    (item,) = (item for item in evaluation_items(data) if item.id == name)
    task.eval()
    with torch.no_grad():
        (prob,), _ = task.localize(collate([item]))
    task.spec = replace(task.spec, threshold=float(prob.median()))
    return task.spec.threshold


@pytest.fixture
def odd(tmp_path: Path) -> LocalizationData:
    samples = [make_sample(tmp_path, *one) for one in ODD]
    return make_data(tmp_path, samples, supervision="label")


def test_the_table_shows_every_kind_of_image(odd: LocalizationData, tmp_path: Path) -> None:
    logger, task = Recorder(), DistillTask(STUDENT, SMALL, image_weight=1.0)
    make_trainer(tmp_path, logger, WandbImages()).validate(task, odd, verbose=False)
    ((key, step, rows),) = logger.tables
    assert (key, step) == ("val/images", 0)
    assert list(rows) == sorted(name for name, *_ in ODD)
    assert {name: row[0] for name, row in rows.items()} == {
        "wide": "splice", "flat": "manipulated", "plain": "manipulated",
        "authentic": "authentic", "unlabelled": "unknown",
    }  # fmt: skip
    shown = {name: (row[3]._height, row[3]._width) for name, row in rows.items()}
    assert shown == {"wide": (150, 512), "flat": (1, 512), "plain": (64, 96),
                     "authentic": (512, 77), "unlabelled": (50, 70)}  # fmt: skip
    overlays = {name: set(row[3]._masks) for name, row in rows.items()}
    every = {"prediction", "ground_truth", "pseudo_mask"}
    assert overlays == {"wide": every, "flat": every, "plain": every - {"pseudo_mask"},
                        "authentic": every - {"pseudo_mask"},
                        "unlabelled": {"prediction"}}  # fmt: skip
    for name, row in rows.items():
        assert all(mask_of(row[3], mask).shape == shown[name] for mask in overlays[name])
    assert not mask_of(rows["authentic"][3], "ground_truth").any()
    truth = mask_of(rows["plain"][3], "ground_truth")
    assert truth[:32, :32].all()
    assert truth.sum() == 32 * 32
    assert set(np.unique(mask_of(rows["wide"][3], "pseudo_mask"))) == {0, 1, 2}


def test_boxes_are_in_pixels_of_the_shown_image(odd: LocalizationData, tmp_path: Path) -> None:
    logger, task = Recorder(), DistillTask(STUDENT, SMALL, image_weight=1.0)
    make_trainer(tmp_path, logger, WandbImages()).validate(task, odd, verbose=False)
    ((_, _, rows),) = logger.tables
    assert {name for name, row in rows.items() if row[3]._boxes} == {"wide", "flat"}
    (box,) = rows["wide"][3]._boxes["boxes"]._val
    assert box["domain"] == "pixel"
    scale = 512 / 1025
    wanted = {"minX": 100 * scale, "minY": 25, "maxX": 512, "maxY": 145}
    assert box["position"] == pytest.approx(wanted, rel=1e-6)


def test_a_turned_photograph_is_shown_upright(odd: LocalizationData, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(tmp_path / "wide.png") as stored:
        stored.load()
    stored.save(tmp_path / "wide.png", exif=exif)
    logger, task = Recorder(), DistillTask(STUDENT, SMALL, image_weight=1.0)
    make_trainer(tmp_path, logger, WandbImages()).validate(task, odd, verbose=False)
    shown = logger.tables[0][2]["wide"][3]
    assert (shown._height, shown._width) == (512, 150)
    assert mask_of(shown, "prediction").shape == (512, 150)
    (box,) = shown._boxes["boxes"]._val
    wanted = {"minX": 5, "minY": 100 * 512 / 1025, "maxX": 125, "maxY": 512}
    assert box["position"] == pytest.approx(wanted, rel=1e-6)


def test_f1_is_that_of_the_map_at_the_stored_size(odd: LocalizationData, tmp_path: Path) -> None:
    logger, task = Recorder(), DistillTask(STUDENT, SMALL, image_weight=1.0)
    threshold = at_median(task, odd)
    make_trainer(tmp_path, logger, WandbImages()).validate(task, odd, verbose=False)
    ((_, _, rows),) = logger.tables
    task.eval()
    for item in evaluation_items(odd):
        with torch.no_grad():
            (prob,), score = task.localize(collate([item]))
        flagged = prob.numpy() > threshold
        assert rows[item.id][2] == pytest.approx(float(score), abs=1e-5)
        if item.label == 1:
            assert item.truth is not None
            expected = f1_score(item.truth.numpy().ravel() != 0, flagged.ravel())
            assert rows[item.id][1] == pytest.approx(expected, abs=1e-3)
            assert item.id != "plain" or expected > 0
        else:
            assert rows[item.id][1] is None
        if max(item.size) <= 512:
            assert (mask_of(rows[item.id][3], "prediction") == flagged).mean() > 0.999


def test_at_most_32_and_the_same_ones_each_epoch(tmp_path: Path) -> None:
    samples = [make_sample(tmp_path, f"v{i:02d}", (40, 48), 1, None) for i in range(40)]
    data, logger = make_data(tmp_path, samples), Recorder()
    trainer = make_trainer(tmp_path, logger, WandbImages(), max_epochs=2)  # with a sanity check
    trainer.fit(DistillTask(STUDENT, SMALL), data)
    assert [step for _, step, _ in logger.tables] == [1, 2]
    first, second = (list(rows) for _, _, rows in logger.tables)
    assert first == second
    assert len(first) == 32
    again = Recorder()
    turned = make_data(tmp_path, samples[::-1], eval_batch_size=7)
    make_trainer(tmp_path, again, WandbImages()).validate(
        DistillTask(STUDENT, SMALL), turned, verbose=False
    )
    assert list(again.tables[0][2]) == first


def test_the_scores_are_those_of_the_weights_that_are_validated(tmp_path: Path) -> None:
    """With averaged weights: the table's mean is the score of the run, epoch by epoch."""
    samples = [make_sample(tmp_path, f"v{i}", (40, 48), 1, None) for i in range(6)]
    data, logger = make_data(tmp_path, samples), Recorder()
    seed_everything(0, verbose=False)
    threshold = at_median(DistillTask(STUDENT, SMALL), data, "v3")
    scores: list[float] = []

    class Scores(Callback):
        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            scores.append(float(trainer.callback_metrics["val/pixel_f1"]))

    seed_everything(0, verbose=False)
    task = DistillTask(STUDENT, SMALL, lr=0.003, warmup=0.0, threshold=threshold)
    averaging = EMAWeightAveraging(decay=0.5)
    callbacks = (averaging, WandbImages(), Scores())
    make_trainer(
        tmp_path, logger, *callbacks, max_epochs=3, num_sanity_val_steps=0, precision="bf16-mixed"
    ).fit(task, data)
    shown = [np.mean([row[1] for row in rows.values()]) for _, _, rows in logger.tables]
    assert shown == pytest.approx(scores, abs=1e-6)
    assert len({round(score, 4) for score in scores}) == 3


def test_the_image_label_branch_shows_its_refined_map(
    odd: LocalizationData, tmp_path: Path
) -> None:
    settings = NetworkInput("resize", (64, 64), error_levels=(75,))
    odd.input, odd.segmenter = settings, SegmenterConfig(name="slic", segments=20)
    task, logger = ImageLabelTask(WCBConfig(backbone="mobilenetv3_small_050"), settings), Recorder()
    threshold = at_median(task, odd)
    make_trainer(tmp_path, logger, WandbImages()).validate(task, odd, verbose=False)
    ((_, _, rows),) = logger.tables
    task.eval()
    (item,) = (item for item in evaluation_items(odd) if item.id == "plain")
    with torch.no_grad():
        (prob,), _ = task.localize(collate([item]))
    assert (mask_of(rows["plain"][3], "prediction") == (prob.numpy() > threshold)).mean() > 0.99
    coarse = super(ImageLabelTask, task).localize(collate([item]))[0][0]
    assert (mask_of(rows["plain"][3], "prediction") != (coarse.detach() > threshold).numpy()).any()
    assert rows["unlabelled"][1] is None


def test_a_failure_is_one_warning_and_the_run_goes_on(
    odd: LocalizationData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Recorder):
        def log_table(self, *_: Any, **__: Any) -> None:
            self.tables.append(("asked", 0, {}))
            raise wandb.errors.CommError("the disk\nis full")

    logger = Broken()
    trainer = make_trainer(tmp_path, logger, WandbImages(), max_epochs=3)
    with caplog.at_level(logging.WARNING, "boxpromptiml"):
        trainer.fit(DistillTask(STUDENT, SMALL, image_weight=1.0), odd)
    assert trainer.global_step == 3
    assert len(logger.tables) == 1
    assert len([r for r in caplog.records if "no more images" in r.message]) == 1


@pytest.mark.parametrize("logger", [False, "csv", "fast_dev_run"])
def test_without_weights_and_biases_nothing_happens(
    logger: str | bool, odd: LocalizationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxpromptiml.tasks.wandb._take", None)  # would be called
    fast = logger == "fast_dev_run"
    used = Recorder() if fast else logger == "csv"
    trainer = make_trainer(tmp_path, used, WandbImages(), fast_dev_run=fast)
    trainer.fit(DistillTask(STUDENT, SMALL, image_weight=1.0), odd)
    assert not isinstance(used, Recorder) or not used.tables


def test_a_real_run_without_a_server_keeps_table_and_images(
    odd: LocalizationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    logger = PatientWandbLogger(project="test", save_dir=tmp_path, offline=True)
    task = DistillTask(STUDENT, SMALL, image_weight=1.0)
    try:
        make_trainer(tmp_path, logger, WandbImages()).validate(task, odd, verbose=False)
    finally:
        wandb.finish()
        for name in ("WANDB_DATA_DIR", "WANDB_INIT_TIMEOUT", "WANDB_FINISH_TIMEOUT"):
            os.environ.pop(name, None)
    (table,) = (tmp_path / "wandb").rglob("files/**/*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == COLUMNS
    assert [row[0] for row in content["data"]] == sorted(name for name, *_ in ODD)
    kept = [path for path in (tmp_path / "wandb" / "data").rglob("*") if path.is_file()]
    pictures = [path for path in kept if path.read_bytes().startswith(b"\xff\xd8")]
    masks = [path for path in kept if path.read_bytes().startswith(b"\x89PNG")]
    sizes = {images.read_image(path)[0].shape[:2] for path in pictures}
    assert sizes == {(150, 512), (1, 512), (64, 96), (512, 77), (50, 70)}
    classes = {value for path in masks for value in np.unique(images.read_image(path)[0])}
    assert classes == {0, 1, 2}


ONLINE = {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9"}


def start(home: Path) -> None:
    """In the new process: wandb's settings are ours alone, warnings say who warns.

    A child of `multiprocessing` ends without `atexit`, where wandb completes its files.
    """
    Finalize(None, atexit._run_exitfuncs, exitpriority=1)
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        if name not in ONLINE and name not in ("WANDB_API_KEY", "WANDB_INIT_TIMEOUT"):
            del os.environ[name]
    os.environ |= {"HOME": str(home), "NETRC": str(home / "none")}
    os.chdir(home)
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s")


def in_new_process(home: Path, job: Words, key: str | None = "0" * 40, **more: str) -> Ended:
    """Run a function or a command in the folder `home`; without a key there is none at all."""
    variables = ONLINE | ({"WANDB_API_KEY": key} if key else {}) | more
    return run(job, partial(start, home), 240, variables)


def log_one(entity: str | None = None) -> None:
    """Log one number."""
    logger = PatientWandbLogger(project="test", save_dir="run", entity=entity)
    logger.log_metrics({"loss": 1.0}, step=3)
    sys.stdout.write("finished\n")


def train(root: Path) -> None:
    """Train for two steps."""
    small = NetworkInput("resize", (32, 32))
    data = LocalizationData(
        [root / "train.jsonl"], [root / "val.jsonl"], supervision="mask", input=small, batch_size=4
    )
    logger = PatientWandbLogger(project="test", save_dir="run")
    trainer = Trainer(
        max_epochs=1, logger=logger, accelerator="cpu", default_root_dir="run",
        enable_progress_bar=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(DistillTask(STUDENT, small), data)
    sys.stdout.write(f"finished {trainer.global_step}\n")


def warnings_of(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("WARNING boxpromptiml")]


@pytest.mark.slow
def test_an_unreachable_server_costs_one_line_and_the_run_is_kept(
    data_root: Path, tmp_path: Path
) -> None:
    done = in_new_process(tmp_path, partial(train, data_root), WANDB_INIT_TIMEOUT="1")
    assert done.status == 0, done.said[-3000:]
    assert "finished 2" in done.said
    (line,) = warnings_of(done.said)
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert log.stat().st_size > 1000
    assert log.parent.name in line
    assert "wandb sync" in line
    assert "127.0.0.1:9" in line


def at_terminal(job: Callable[[], object]) -> None:
    """Do a job with a terminal as stdin and stderr, where nobody types."""
    _, end = pty.openpty()
    os.dup2(end, 0)
    os.dup2(end, 2)
    sys.stdin, sys.stderr = os.fdopen(0), os.fdopen(2, "w")
    assert sys.stdin.isatty()
    assert sys.stderr.isatty()
    job()


@pytest.mark.slow
def test_without_a_key_it_neither_asks_nor_fails(tmp_path: Path) -> None:
    """At a terminal, where wandb would prompt for the key."""
    done = in_new_process(tmp_path, partial(at_terminal, log_one), key=None)
    assert done.status == 0, done.said[-3000:]
    assert "finished" in done.said
    (line,) = warnings_of(done.said)
    assert "no API key" in line
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


VIEWER = {"data": {"viewer": {"id": "1", "entity": "me", "username": "me", "email": "me@localhost",
                             "flags": "{}", "teams": {"edges": []}}}}  # fmt: skip


class Refusing(BaseHTTPRequestHandler):
    """Weights & Biases as far as the question who one is; all else it refuses."""

    status = 401
    message = "user is not logged in"
    knows_key = False

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"] or 0))
        known = self.knows_key and b"query Viewer" in asked
        reply = VIEWER if known else {"errors": [{"message": self.message}]}
        self.send_response(200 if known else self.status)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *words: object) -> None:
        pass


class RefusingEntity(Refusing):
    status, message, knows_key = 404, "entity nobody not found", True


@contextmanager
def serving(handler: type[Refusing]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("refusing", [Refusing, RefusingEntity])
def test_a_wrong_key_or_entity_costs_one_line_and_the_run_is_kept(
    refusing: type[Refusing], tmp_path: Path
) -> None:
    with serving(refusing) as address:
        done = in_new_process(tmp_path, partial(log_one, "nobody"), WANDB_BASE_URL=address)
    assert done.status == 0, done.said[-3000:]
    assert "finished" in done.said
    (line,) = warnings_of(done.said)
    assert refusing.message in line
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert log.parent.name in line


def test_it_takes_what_lightnings_logger_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """Also the arguments of wandb.init, so that the command line can put ours in its place."""
    given = ["--trainer.logger.init_args.project=p", "--trainer.logger.init_args.tags=[a,b]",
             "--trainer.logger.init_args.entity=e"]  # fmt: skip
    found = []
    for name in ("lightning.pytorch.loggers.WandbLogger",
                 "boxpromptiml.tasks.wandb.PatientWandbLogger"):  # fmt: skip
        assert main(["fit", f"--trainer.logger={name}", *given, "--print_config"]) == 0
        found.append(yaml.safe_load(capsys.readouterr().out)["trainer"]["logger"]["init_args"])
    assert found[0] == found[1]
    assert found[0]["tags"] == ["a", "b"]


@pytest.mark.slow
def test_it_is_put_in_place_of_lightnings_in_a_list_too(tmp_path: Path, data_root: Path) -> None:
    """Beside ours, whose history stays, and another; the configuration reaches the run."""
    name = "lightning.pytorch.loggers"
    loggers = [{"class_path": f"{name}.WandbLogger", "init_args": {"project": "test"}},
               {"class_path": f"{name}.CSVLogger",
                "init_args": {"save_dir": "elsewhere", "name": "", "version": ""}},
               {"class_path": f"{name}.CSVLogger",
                "init_args": {"save_dir": "more", "name": "x"}}]  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"trainer": {"logger": loggers}}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("earlier")
    words = [
        "--config=c.yaml", "--trainer.default_root_dir=run", "--data.input.size=[32,32]",
        *(f"--data.{split}=[{data_root}/{split}.jsonl]" for split in ("train", "val", "test")),
        "--data.supervision=mask", "--model.student.backbone=mobilenetv3_small_050",
        "--trainer.accelerator=cpu", "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1",
    ]  # fmt: skip
    for verb, more in (("fit", []), ("test", ["--ckpt_path=run/checkpoints/last.ckpt"])):
        done = in_new_process(tmp_path, ["boxpromptiml", verb, *words, *more], key=None)
        assert done.status == 0, done.said[-3000:]
        assert "no API key" in done.said
    runs = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 2
    assert all(b"gradient_clip_val" in run.read_bytes() for run in runs)  # the configuration
    assert (tmp_path / "run" / "metrics_before_0.csv").read_text() == "earlier"
    assert "train/loss" in (tmp_path / "run" / "metrics.csv").read_text()  # not of `test`
    assert not (tmp_path / "elsewhere").exists()
    assert len(list((tmp_path / "more" / "x").iterdir())) == 2


@pytest.mark.parametrize("sweep", [None, "abc123"])
def test_each_run_of_an_agent_has_a_folder(
    sweep: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    if sweep:
        monkeypatch.setenv("WANDB_SWEEP_ID", sweep)
    assert sweep_folder("runs/x") == ("runs/x/sweep_abc123/r1" if sweep else "runs/x")
