"""What every test starts from: no network, fixed threads, and tiny datasets made on the fly."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "offline"))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [sys.path[0], os.environ.get("PYTHONPATH")])
)
import no_network  # noqa: F401 - cuts off this process; on PYTHONPATH, those that tests start

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import hypothesis
import lightning  # noqa: F401 - before any test captures stderr: its log handler keeps the stream
import pytest
import torch

from tests.helpers.data import make_manifest

collect_ignore = ["offline"]
torch.set_num_threads(1)
hypothesis.settings.register_profile("shared-machine", deadline=None)  # no test is timed
hypothesis.settings.load_profile("shared-machine")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: train.jsonl (6 + 3 images), val.jsonl (4 + 2) and test.jsonl (4 + 2)."""
    root = tmp_path_factory.mktemp("data")
    make_manifest(root, "train", 6, 3, seed=1)
    make_manifest(root, "val", 4, 2, seed=2)
    make_manifest(root, "test", 4, 2, seed=3)
    return root
