import fcntl
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.manifests.manifest import Manifest, read_manifest, write_manifest
from boxpromptiml.records import Box, BoxArray, ImageArray, Proposal, Sample
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.grabcut import GrabCutTeacher
from boxpromptiml.teachers.pseudo_masks import run_job
from boxpromptiml.teachers.shards import Shard
from data_prep.__main__ import main
from tests.helpers.commands import Command


def content(folder: Path) -> dict[str, bytes]:
    """Everything but locks, and the count of what the last run made."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock") and path.name != "summary.json"
    }


@pytest.fixture
def train(data_root: Path) -> Manifest:
    return read_manifest(data_root / "train.jsonl")


@pytest.fixture(scope="module")
def alone(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of train.jsonl."""
    out = tmp_path_factory.mktemp("alone")
    run_job(read_manifest(data_root / "train.jsonl"), out, GrabCutTeacher(), Consensus(copies=2))
    return content(out)


def a_sample(name: str, label: int | None = 1, boxed: bool = True) -> Sample:
    boxes = (Box(0, 0, 1, 1),) if boxed else None
    return Sample(name, "d", "train", name, f"{name}.png", (9, 9), label, boxes)


@given(
    ids=st.lists(st.text(max_size=8), unique=True, max_size=60),
    count=st.integers(1, 9),
    order=st.randoms(use_true_random=False),
)
def test_shards_are_disjoint_complete_balanced_and_known_by_id(
    ids: list[str], count: int, order: Any
) -> None:
    samples = [a_sample(name) for name in ids]
    others = [a_sample("authentic" * 3, label=0), a_sample("unannotated" * 3, boxed=False)]
    parts = [[samples[p].id for p in Shard(i, count).choose(samples)] for i in range(count)]
    assert sorted(name for part in parts for name in part) == sorted(ids)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    shuffled = [*others, *samples]
    order.shuffle(shuffled)
    again = [[shuffled[p].id for p in Shard(i, count).choose(shuffled)] for i in range(count)]
    assert again == parts


def test_neighbours_of_a_manifest_are_dealt_out() -> None:
    """Datasets lie in blocks, and images of one are of one size: blocks would be unequal work."""
    samples = [a_sample(f"small/{n}") for n in range(500)]
    samples += [a_sample(f"large/{n}") for n in range(500)]
    for index in range(4):
        chosen = Shard(index, 4).choose(samples)
        assert 85 < sum(samples[place].id.startswith("large") for place in chosen) < 165


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0), (5, 1)])
def test_no_such_shard(index: int, count: int) -> None:
    with pytest.raises(UserError, match="num_shards - 1"):
        Shard(index, count)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_shards_give_the_files_of_one_process(
    train: Manifest, alone: dict[str, bytes], tmp_path: Path, count: int
) -> None:
    made = []
    for index in reversed(range(count)):
        shard = Shard(index, count)
        summary = run_job(train, tmp_path, GrabCutTeacher(), Consensus(copies=2), 0, shard)
        made.append(summary["made"])
        assert summary["status"] == {"ok": made[-1]} or summary["status"] == {}
        assert not (tmp_path / "manifest.jsonl").exists()
    assert sum(made) == 6
    assert max(made) - min(made) <= 1
    whole = run_job(train, tmp_path, GrabCutTeacher(), Consensus(copies=2))
    assert whole["made"] == 0
    assert content(tmp_path) == alone


def job_words(root: Path, out: Path, *more: str) -> list[str]:
    return ["pseudo-masks", f"--manifest={root}/train.jsonl", f"--out={out}", "--copies=2", *more]


@pytest.mark.slow
def test_two_processes_in_one_folder_at_once(
    data_root: Path, alone: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = [(f"--shard={index}", "--num_shards=2", "--num_workers=1") for index in range(2)]
    running = [Command(["data_prep", *job_words(data_root, tmp_path, *shard)]) for shard in shards]
    assert [process.wait(200).status for process in running] == [0, 0]
    assert len(list(tmp_path.rglob("*.png"))) == 6
    assert main(job_words(data_root, tmp_path)) == 0
    assert "0 made now" in capsys.readouterr().out
    assert content(tmp_path) == alone


@dataclass(frozen=True)
class Slow:
    """Answers with the box; from `deadly` boxes on it kills its process."""

    marks: Path
    deadly: int = 10**9

    @property
    def settings(self) -> dict[str, Any]:
        return {"name": "slow", "settings": {}}

    def propose(self, image: ImageArray, boxes: BoxArray) -> list[Proposal]:
        with (self.marks / "asked").open("a") as stream:
            stream.write("x")
        if (self.marks / "asked").stat().st_size >= self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        size = image.shape[:2]
        masks = (geometry.union_mask(box[None], size) for box in boxes)
        return [Proposal(m, 1.0, Box(*map(float, b))) for m, b in zip(masks, boxes, strict=True)]


def in_a_process(work: Callable[[], object]) -> int:
    """Status of a forked process that does some work."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_killed_shard_costs_its_unfinished_images_only(train: Manifest, tmp_path: Path) -> None:
    out, marks = tmp_path / "out", tmp_path
    deadly = Slow(marks, deadly=3)
    status = in_a_process(lambda: run_job(train, out, deadly, Consensus(), 0, Shard(0, 1)))
    assert status == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert len(finished) == 2
    half = next(iter(finished)).parent / f".{'0' * 16}.123.tmp"
    half.write_bytes(b"half")
    assert run_job(train, out, Slow(marks), Consensus(), 0, Shard(1, 2))["made"] <= 3
    assert half.exists()  # it might be the other shard's, alive
    summary = run_job(train, out, Slow(marks), Consensus())
    assert summary["status"] == {"authentic": 3, "ok": 6}
    assert not half.exists()
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())
    assert (marks / "asked").stat().st_size == 6 + 1  # one image was asked for twice


def test_who_may_write_beside_whom(train: Manifest, tmp_path: Path) -> None:
    tried = {}

    class Impatient(Slow):
        def propose(self, image: ImageArray, boxes: BoxArray) -> list[Proposal]:
            for name, shard in {"whole": None, "other": Shard(1, 2), "same": Shard(0, 2)}.items():
                try:
                    run_job(train, tmp_path / "out", Slow(tmp_path), Consensus(), 0, shard)
                    tried[name] = "ran"
                except UserError as error:
                    tried[name] = str(error)
            return super().propose(image, boxes)

    run_job(train, tmp_path / "out", Impatient(tmp_path), Consensus(), 0, Shard(0, 2))
    assert tried.pop("other") == "ran"
    assert all("another pseudo-mask job" in said for said in tried.values())
    assert len(tried) == 2
    shutil.rmtree(tmp_path / "out")
    run_job(train, tmp_path / "out", Impatient(tmp_path), Consensus())
    assert all("another pseudo-mask job" in said for said in tried.values())
    assert len(tried) == 3


def test_a_pipe_in_the_place_of_a_lock_is_a_lock(train: Manifest, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    run_job(train, tmp_path, Slow(tmp_path), Consensus())
    assert (tmp_path / "manifest.jsonl").is_file()


def test_a_file_system_without_locks_is_named(
    train: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> NoReturn:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with pytest.raises(UserError, match=r"no locks.*flock"):
        run_job(train, tmp_path, Slow(tmp_path), Consensus())


def test_a_shard_ends_well_and_the_whole_names_what_was_rejected(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(data_root, tmp_path / "data"))
    manifest = read_manifest(root / "train.jsonl")
    manifest.image_path(manifest.samples[0]).write_bytes(b"")
    options = job_words(root, tmp_path / "out")
    assert main([*options, "--shard=0", "--num_shards=1"]) == 0
    assert "1 rejected" in capsys.readouterr().out
    assert main(options) == 3
    assert len((tmp_path / "out" / "errors.jsonl").read_text().splitlines()) == 1


def test_more_shards_than_images(
    train: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [replace(sample, boxes=None) for sample in train.samples[1:]]
    written = write_manifest(
        train.path.parent / "one.jsonl", train.header, [train.samples[0], *few]
    )
    words = [f"--manifest={written.path}", f"--out={tmp_path}", "--num_shards=3"]
    for index in range(3):
        assert main(["pseudo-masks", *words, f"--shard={index}"]) == 0
    assert capsys.readouterr().out.count("nothing to do") == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--shard=2", "--num_shards=2"], "0 to num_shards - 1"),
        (["--num_shards=2"], "--num_shards has no effect without --shard"),
        (["--precision=bf16"], "--precision has no effect with --teacher grabcut"),
    ],
)
def test_mistakes_on_the_command_line(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(job_words(data_root, tmp_path, *more)) == 1
    assert said in capsys.readouterr().err


def test_a_claim_ends_with_its_process(train: Manifest, tmp_path: Path) -> None:
    """Even where it is killed: nobody has to delete a lock by hand."""
    out = tmp_path / "out"
    in_a_process(lambda: run_job(train, out, Slow(tmp_path, deadly=1), Consensus()))
    assert run_job(train, out, Slow(tmp_path), Consensus())["made"] == 6
