"""Publishing and fetching weights: into folders, and against a Hub that runs inside the test."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml

from boxpromptiml import Localizer
from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import build_network
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io import images
from boxpromptiml.metrics.results import Evaluation, ImageRow, write_evaluation
from boxpromptiml.models.configs import WCBConfig
from boxpromptiml.models.inputs import NetworkInput
from tests.helpers.hub_server import Hub, running_hub

# Its own process: huggingface_hub reads the address of the Hub and of its cache when imported.
CLIENT = """
import json, os, sys
from boxpromptiml import Localizer
from boxpromptiml.errors import UserError
from boxpromptiml.io.images import read_image

def said(action):
    try:
        return action()
    except UserError as error:
        return f"error: {error}"

checkpoint, photo = sys.argv[1:3]
localizer = Localizer.load(checkpoint)
answers = {"early": "boxpromptiml.inference.hub" in sys.modules}
answers["push"] = said(lambda: localizer.push_to_hub("us/student", licence="mit"))
for name in ("us/student", "us/none"):
    found = said(lambda: Localizer.from_pretrained(name, "main"))
    answers[name] = found if isinstance(found, str) else found(photo).tolist()
os.environ["HF_TOKEN"] = "hf_other"
answers["refused"] = said(lambda: localizer.push_to_hub("us/student"))
print(json.dumps(answers))
"""


def run_client(
    checkpoint: Path, image: Path, home: Path, hub: Hub, offline: str = "0"
) -> dict[str, Any]:
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": offline}
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(checkpoint), str(image)],
        env=os.environ | own | quiet | {"HF_TOKEN": "hf_known"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


@pytest.mark.slow
def test_pushed_and_fetched_from_a_hub(checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        answers = run_client(checkpoint, photo, tmp_path / "home", hub)
        assert not answers["early"]  # the Hub's client is imported when it is used
        assert answers["push"].startswith(f"{hub.address}/us/student/commit/")
        (wishes,) = hub.made
        assert wishes.get("visibility") == "private" or wishes["private"] is True  # by release
        assert sorted(hub.files) == ["us/student/README.md", "us/student/model.safetensors"]
        assert b'from_pretrained("us/student")' in hub.files["us/student/README.md"]
        expected = Localizer.load(checkpoint)(photo)
        np.testing.assert_allclose(answers["us/student"], expected, atol=1e-6)
        assert answers["us/none"].startswith("error: us/none: no such folder, and the Hub")
        assert answers["refused"].startswith("error: us/student: not uploaded: ")
        assert "401" in answers["refused"]
        fetched = {ask.rsplit("/", 1)[1] for ask in hub.asked if "/resolve/" in ask}
        assert fetched == {"model.safetensors"}

        before = len(hub.asked)
        again = run_client(checkpoint, photo, tmp_path / "home", hub, offline="1")
        assert len(hub.asked) == before
        assert again["us/student"] == answers["us/student"]
        assert "HF_HUB_OFFLINE" in again["push"]
        assert "HF_HUB_OFFLINE" in again["us/none"]


def test_files_of_others_are_kept(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    localizer = Localizer.load(checkpoint)
    (tmp_path / "README.md").write_text("licence: mit")  # as the Hub makes it
    (tmp_path / "config.json").write_text("mine")
    localizer.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text() == "mine"
    with pytest.raises(UserError, match=r"config\.json: is no folder"):
        localizer.save_pretrained(tmp_path / "config.json")
    assert (tmp_path / "README.md").read_text() == "licence: mit"
    assert "the model card was not written" in caplog.text
    (tmp_path / "model.safetensors").write_bytes(b"of another network")
    with pytest.raises(UserError, match="is there, and not of an earlier job"):
        localizer.save_pretrained(tmp_path)


def test_a_folder_gives_the_same_answers(checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    localizer = Localizer.load(checkpoint)
    localizer.save_pretrained(tmp_path / "mine")
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == [
        "README.md",
        "model.safetensors",
    ]
    again = Localizer.from_pretrained(tmp_path / "mine")
    assert again.spec == localizer.spec
    np.testing.assert_array_equal(again(photo), localizer(photo))
    other = Localizer.from_pretrained(tmp_path / "mine", copy_move=True, flips=True)
    assert (other.spec.copy_move, other.spec.flips) == (True, True)
    again.save_pretrained(str(tmp_path / "mine"), licence="mit")  # over itself
    header = (tmp_path / "mine" / "README.md").read_text().split("---")[1]
    assert yaml.safe_load(header)["license"] == "mit"


def test_the_code_of_the_model_card_runs(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Localizer.load(checkpoint).save_pretrained(tmp_path / "mine")
    images.write_jpeg(tmp_path / "photo.jpg", np.zeros((40, 60, 3), np.uint8), 90)
    text = (tmp_path / "mine" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own card
    assert names["flagged"].shape == (40, 60)
    assert names["flagged"].dtype == bool


def test_the_model_card_says_what_is_known(tmp_path: Path) -> None:
    trained_on = ("casia2", "odd `name`\n# x: {{ 1 + 1 }}")
    spec = ModelSpec(
        WCBConfig("mobilenetv3_small_050", stages=(0, 1, 2)),
        NetworkInput("resize", (64, 96), (60, 90)),
        0.4,
        trained_on=trained_on,
        copy_move=True,
    )
    write_safetensors(tmp_path / "w.safetensors", build_network(spec).eval(), spec.to_dict())
    score = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 7}
    row = ImageRow("", "a", "x", "", 1, 4, 4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, "", "")
    rows = tuple(replace(row, id=f"a/{number}") for number in range(7))
    metrics = {
        "schema_version": 1, "preset": "default", "threshold": 0.5,
        "images": {"manipulated": 7, "authentic": 0, "unknown": 0},
        "bootstrap": {"level": 0.95, "resamples": 9, "seed": 0}, "split": "test", "manifests": [],
        "predictions": "p", "curves": {}, "versions": {},
        "groups": {"kind": {"a\n```x": {"pixel_f1": score, "count": 7}}},
        "scores": {"pixel_f1": score}, "image_score": "maximum",
    }  # fmt: skip
    write_evaluation(tmp_path / "scores", Evaluation(metrics, rows))
    localizer = Localizer.load(tmp_path / "w.safetensors")
    localizer.save_pretrained(tmp_path / "mine", evaluation=tmp_path / "scores")
    _, header, text = (tmp_path / "mine" / "README.md").read_text().split("---\n", 2)
    values = yaml.safe_load(header)
    assert values["library_name"] == "boxpromptiml"
    assert values["datasets"] == list(trained_on)
    assert "license" not in values
    assert "No licence was given" in text
    assert "score is not proof" in text
    assert "prob > 0.4" in text
    assert "stretched to 64 x 96" in text
    assert "quality 60, 90" in text
    assert "Regions that match another place of the image are added" in text
    assert "0.500 [0.400, 0.600]" in text
    assert "`casia2`, `odd name # x: {{ 1 + 1 }}`" in text
    assert text.count("```") == 3  # the block of code, and the name inside a line of the table
    assert not [line for line in text.splitlines() if line.startswith("```x")]
    (tmp_path / "scores" / "metrics.json").write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match="preset: Field required"):
        localizer.save_pretrained(tmp_path / "mine", evaluation=tmp_path / "scores")


def test_wrong_use_is_said(checkpoint: Path, tmp_path: Path) -> None:
    onnx = replace(Localizer.load(checkpoint), network=cast(Any, None))  # no PyTorch in it
    with pytest.raises(UserError, match="only PyTorch's weights"):
        onnx.save_pretrained(tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty/model\.safetensors: no such"):
        Localizer.from_pretrained(tmp_path / "empty")
    for name in ("https://example.com/x", "a/b/c", str(tmp_path / "none")):
        with pytest.raises(UserError, match="not a valid repository name"):
            Localizer.from_pretrained(name)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        Localizer.from_pretrained("us/never-seen")
