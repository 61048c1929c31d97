"""A small /dev/shm is one clear line before training, not a hang."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from boxpromptiml.data.shared_memory import require_shared_memory
from boxpromptiml.errors import UserError
from tests.helpers.fit import fit

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> int:
    """What a container of 1 MB has."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1_000_000, 0, 1_000_000))
    return 1_000_000


@pytest.mark.parametrize(("batch", "workers"), [(200_000, 2), (10**9, 0), (1, 100)])
def test_what_fits_passes(free: int, batch: int, workers: int) -> None:
    require_shared_memory(batch, workers)


@pytest.mark.parametrize(("batch", "workers", "fitting"), [(200_000, 4, 2), (600_000, 1, 0)])
def test_what_does_not_fit_is_told_how_many_would(
    free: int, batch: int, workers: int, fitting: int
) -> None:
    with pytest.raises(UserError, match=f"--data.num_workers={fitting}$"):
        require_shared_memory(batch, workers)
    require_shared_memory(batch, fitting)


def test_fit_says_so_before_it_starts(
    data_root: Path, tmp_path: Path, free: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--trainer.max_epochs=1", "--data.num_workers=4", "--data.batch_size=3"]
    assert fit(data_root, tmp_path, *words) == 1
    assert "docker run --shm-size" in capsys.readouterr().err
