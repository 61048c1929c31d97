"""What every test starts from: no network, one thread, and tiny datasets made on the fly."""

import os
from pathlib import Path

from tests.offline import sitecustomize  # noqa: F401 - no network for this process ...

os.environ["PYTHONPATH"] = os.pathsep.join(  # ... nor for those that the tests start
    filter(None, [str(Path(__file__).parent / "offline"), os.environ.get("PYTHONPATH")])
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ["OMP_NUM_THREADS"] = "1"  # before torch: every core has a process with tests of its own

import hypothesis
import pytest
from filelock import FileLock

from tests.helpers.data import make_manifest

collect_ignore = ["offline"]
LONG = os.environ.get("BOXPROMPTIML_CAMPAIGN") == "long"
hypothesis.settings.register_profile(  # no test is timed
    "shared-machine", deadline=None, max_examples=200 if LONG else 40
)
hypothesis.settings.load_profile("shared-machine")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run files and tests that are named one by one in this process, so that `-s` shows output.

    Returns:
        0 for these, else None: as many processes as cores.
    """
    named = [config.invocation_params.dir / word.partition("::")[0] for word in config.args]
    return 0 if all(path.is_file() for path in named) else None


def pytest_configure(config: pytest.Config) -> None:
    """Import Lightning before a test captures stderr, whose stream its log handler would keep."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses"):
        import lightning  # noqa: F401


@pytest.fixture(scope="session")
def tiny_demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: what `boxpromptiml demo` writes, in miniature; made once for all processes."""
    from tests.helpers.demo import run_tiny_demo

    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if hasattr(request.config, "workerinput") else root) / "demo"
    with FileLock(f"{folder}.lock"):
        if not (folder / "metrics.json").exists():
            run_tiny_demo(folder)
    return folder


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: train.jsonl (6 + 3 images), val.jsonl (4 + 2) and test.jsonl (4 + 2)."""
    root = tmp_path_factory.mktemp("data")
    make_manifest(root, "train", 6, 3, seed=1)
    make_manifest(root, "val", 4, 2, seed=2)
    make_manifest(root, "test", 4, 2, seed=3)
    return root
