"""Every command with its standard streams closed, as some schedulers start them.

`demo` runs others of these in processes of its own. tests/cli/test_process.py starts some from a
shell; here, an imported interpreter is forked, and put in the state that Python starts in then.
"""

import json
import os
import shlex
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.cli import _TRAINER_VERBS, _VERBS
from boxpromptiml.inference.export import describe
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest
from data_prep.__main__ import _JOBS
from data_prep.export_boxes import export_boxes
from tests.helpers.commands import Command, run
from tests.helpers.data import make_folder
from tests.helpers.fit import fit_words
from tests.helpers.models import SPECS, make_network
from tests.helpers.processes import wait_for

V1 = Path(__file__).parents[1] / "compat" / "v1"
STREAMS = ("stdin", "stdout", "stderr")
COMMANDS = {
    "fit": "boxpromptiml fit --config={run}/config.yaml --data.num_workers=1",
    "validate": "boxpromptiml validate {trained} --data.val=[{data}/val.jsonl]",
    "test": "boxpromptiml test {trained} --data.test=[{data}/test.jsonl]",
    "predict": "boxpromptiml predict {trained} --data.predict=[{data}/test.jsonl]",
    "localize": "boxpromptiml localize --images {v1}/a.png --checkpoint {student} --out {out}",
    "evaluate": "boxpromptiml evaluate --predictions {maps} --manifest {data}/test.jsonl "
    "--out {out}",
    "robustness": "boxpromptiml robustness --manifest {data}/test.jsonl --checkpoint {student} "
    "--conditions jpeg:70 --out {out}",
    "calibrate": "boxpromptiml calibrate --manifest {data}/val.jsonl --checkpoint {student} "
    "--folds 2 --out {out}.safetensors",
    "report": "boxpromptiml report --run {run} --split val --out {out}.html",
    "study": "boxpromptiml study --file {study} --out {out}",
    "annotate": "boxpromptiml annotate --images {photos} --out {out}.json --port {port}",
    "page": "boxpromptiml page --images {photos} --checkpoint {student} --port {port}",
    "complexity": "boxpromptiml complexity --model {student} --size 64 64 --repeats 1 "
    "--out {out}.json",
    "info": "boxpromptiml info {student}",
    "experiments": "boxpromptiml experiments",
    "completion": "boxpromptiml completion",
    "export": "boxpromptiml export --checkpoint {student} --out {out}.onnx",
    "import": "data_prep import --dataset folder --source {photos} --out {out}.jsonl --verify",
    "forgeries": "data_prep forgeries --images {photos}/tampered --count 2 --num_workers 1 "
    "--out {out}",
    "cam-boxes": "data_prep cam-boxes --manifest {data}/train.jsonl --checkpoint {classifier} "
    "--out {out}.jsonl",
    "boxes": "data_prep boxes --manifest {data}/train.jsonl --out {out}.jsonl",
    "import-boxes": "data_prep import-boxes --manifest {data}/train.jsonl --annotations {coco} "
    "--format coco --out {out}.jsonl",
    "export-boxes": "data_prep export-boxes --manifest {data}/train.jsonl --out {out}.json",
    "protocol": "data_prep protocol --protocol benco --manifest {data}/train.jsonl --out {out}",
    "check": "data_prep check --manifest {data}/train.jsonl --num_workers 1 --out {out}",
    "pseudo-masks": "data_prep pseudo-masks --manifest {data}/train.jsonl --num_workers 1 "
    "--out {out}",
}
SERVERS = ("annotate", "page")
ONE_BY_ONE = ("fit", "localize", "annotate", "pseudo-masks")  # each stream alone too
STATUS = dict.fromkeys(SERVERS, 143) | {"protocol": 1}  # no protocol has the dataset of the tests


@pytest.fixture(scope="module")
def places(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the commands read."""
    folder = tmp_path_factory.mktemp("places")
    trained = folder / "run"
    words = fit_words(data_root, trained, "--trainer.max_epochs=1")
    assert run(["boxpromptiml", *words]).status == 0
    export_boxes(data_root / "train.jsonl", folder / "coco.json")
    classifier, network = folder / "classifier.safetensors", make_network(SPECS["wcbnet"])
    write_safetensors(classifier, network, describe(network, SPECS["wcbnet"]))
    maps = folder / "maps"
    for sample in read_manifest(data_root / "test.jsonl").samples:
        images.write_png(maps / f"{sample.id}.png", np.full(sample.size, 99, np.uint8))
    study = folder / "study.yaml"
    study.write_text(json.dumps({
        "title": "Streams", "config": f"{trained}/config.yaml", "reference": "one",
        "settings": {"data.test": [f"{data_root}/test.jsonl"]},
        "variants": {"one": {"what": "one"}},
    }))  # fmt: skip
    return {
        "data": str(data_root), "v1": str(V1), "run": str(trained), "study": str(study),
        "maps": str(maps), "coco": str(folder / "coco.json"),
        "student": str(V1 / "student.safetensors"),
        "classifier": str(classifier),
        "photos": str(make_folder(folder / "tree", 2, 1)),
        "trained": f"--config={trained}/config.yaml --ckpt_path={trained}/checkpoints/last.ckpt",
    }  # fmt: skip


def close(descriptors: range) -> None:
    """Leave the streams as a fresh interpreter finds them."""
    for descriptor in descriptors:
        getattr(sys, STREAMS[descriptor]).flush() if descriptor else None
        os.close(descriptor)
        setattr(sys, STREAMS[descriptor], None)


def test_every_command_is_tried() -> None:
    others = {"demo", "wandb-artifact"}  # the latter starts wandb's own process
    assert set(COMMANDS) == {*_VERBS, *_TRAINER_VERBS, *_JOBS} - others


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "descriptors"),
    [(name, range(3)) for name in COMMANDS]
    + [(name, range(one, one + 1)) for name in ONE_BY_ONE for one in range(3)],
)
def test_a_command_runs_with_streams_closed(
    name: str, descriptors: range, places: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    words = shlex.split(COMMANDS[name].format(**places, out=tmp_path / "out", port=port))
    if name in _TRAINER_VERBS:
        words.append(f"--trainer.default_root_dir={tmp_path / 'out'}")
    command = Command(words, partial(close, descriptors))
    if name in SERVERS:
        assert wait_for(lambda: listens(port), 120)
        command.signal(signal.SIGTERM)
    ended = command.wait(300)
    assert ended.status == STATUS.get(name, 0), ended.said
    assert "Traceback" not in ended.said
    errors = tmp_path / "out" / "errors.jsonl"
    assert not errors.exists() or not errors.read_text()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
