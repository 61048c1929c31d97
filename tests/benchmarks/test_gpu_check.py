"""benchmarks/gpu_check.py on the CPU, where the device agrees with itself."""

from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import Check, Clock, Speed


def test_the_rehearsal_on_a_cpu_holds_every_limit(tmp_path: Path) -> None:
    assert gpu_check.check("cpu", gpu_check.SMALL, 0, tmp_path)
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("| held |") == 8
    assert page.count("| - |\n") == 3  # jobs, without GPU memory
    assert "missed" not in page


def test_a_device_that_computes_something_else_is_noticed() -> None:
    row = Check("maps", 2e-4, 1e-4)
    assert "| maps | 0.0001 | 2.0e-04 | **missed** |" in gpu_check.table("cpu", [row], [])


def test_memory_and_waiting_are_shown() -> None:
    page = gpu_check.table("cpu", [], [Speed("fit", 12.345, 0.25, 3 << 30)])
    assert "| fit | 12.3 | 25 % | 3,072 |" in page


def test_waiting_is_the_time_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    times = []
    for step in range(10):  # 1 s of waiting and 3 s of work
        times += [4.0 * step + 1, 4.0 * step + 4]
    now = iter(times)
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = Clock("cpu")
    for _ in range(10):
        clock.on_train_batch_start()
        clock.on_train_batch_end()
    seconds, waiting = clock.result()
    assert (seconds, waiting) == (4.0, 0.25)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["gpu_check", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="no GPU; --device cpu rehearses"):
        gpu_check.main()
