from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boxpromptiml.errors import UserError
from data_prep import pseudo_masks


@pytest.mark.parametrize(
    ("options", "device"),
    [
        ({}, "auto"),
        ({"device": "cuda:1"}, "cuda:1"),
        ({"num_workers": 2}, "cpu"),
        ({"num_workers": 2, "engine": "ray"}, "cpu"),
        ({"num_workers": 2, "engine": "ray", "gpus_per_worker": 0.5}, "auto"),
    ],
)
def test_a_gpu_is_found_where_one_process_has_it(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], device: str
) -> None:
    found = []

    def make(*given: Any) -> SimpleNamespace:
        found.append(given[3])
        return SimpleNamespace(settings={})

    def run(manifest: object, out: Path, teacher: Any, *_: object) -> dict[str, Any]:
        if options.get("engine") == "ray":
            teacher.make()  # as its workers do
        return {"status": {}, "made": 0, "audit": {"images": 0}}

    monkeypatch.setattr(pseudo_masks, "make_teacher", make)
    monkeypatch.setattr(pseudo_masks, "run_job", run)
    pseudo_masks.pseudo_masks(data_root / "train.jsonl", data_root, "sam", **options)
    assert found[-1] == device


def test_workers_do_not_share_a_gpu(data_root: Path) -> None:
    with pytest.raises(UserError, match="--device cuda runs in one process; leave --num_workers"):
        pseudo_masks.pseudo_masks(
            data_root / "train.jsonl", data_root, "sam", device="cuda", num_workers=2
        )
